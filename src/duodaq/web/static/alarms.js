// Alarms: those that nobody knows of in a banner that stays in sight, and all of them in a list. Nothing where there are none.
import { ago, clock, duration, el, named, neat, put, saidOf, unitSaid } from "./format.js";
import * as link from "./link.js";
import { isOld, labTime } from "./moment.js";
import { toast } from "./toasts.js";

const MOST_IN_BANNER = 3;
const RINGS = new Set(["raised", "returned"]);
const ORDER = ["raised", "returned", "acknowledged", "pending", "normal"];
const cards = new Map();
let banner, list, tab, askName, operator = false, shown = "", watches = new Map();

export function build(parts) {
  ({ banner, list, tab, askName } = parts);
  list.className = "view alarm-list";
  tab.hidden = true;
}

/** Who looks: only an operator has buttons. */
export function greet(isOperator, definitions = []) {
  operator = isOperator;
  watches = new Map(definitions.map((one) => [one.name, one]));
  cards.clear();
  list.replaceChildren();
  shown = "";
}

/** How all stand: five times a second. Which channels ring. */
export function moved(alarms) {
  tab.hidden = !alarms.length;
  const rings = alarms.filter((one) => RINGS.has(one.state));
  const raised = alarms.filter((one) => one.state === "raised" || one.state === "acknowledged");
  put(tab, rings.length ? `Alarms ${rings.length}` : "Alarms");
  tab.classList.toggle("rings", rings.length > 0);
  warn(rings);
  for (const name of cards.keys()) if (!alarms.some((one) => one.name === name)) cards.get(name).box.remove(), cards.delete(name);
  alarms.forEach(update);
  return new Set(raised.map((one) => `${one.instrument}.${one.channel}`));
}

/** The same, as time goes on. */
export const aged = (alarms) => alarms.forEach(update);

function warn(rings) {
  const what = JSON.stringify([operator, rings.map((one) => [one.name, one.state, one.since_ns])]);
  if (what !== shown) {
    shown = what;
    banner.hidden = !rings.length;
    const more = rings.length - MOST_IN_BANNER;
    banner.replaceChildren(...rings.slice(0, MOST_IN_BANNER).map(line), more > 0 ? el("div", { class: "line" }, el("a", { href: "#alarms" }, `and ${more} more`)) : "");
  }
  for (const one of rings.slice(0, MOST_IN_BANNER)) {
    const words = banner.querySelector(`[data-alarm="${CSS.escape(one.name)}"] .why`);
    if (words) put(words, reason(one));
  }
}

/** What it watches for, in a line. */
function limits(one) {
  const { unit, low, high, rate, stale_s, delay_s } = watches.get(one.name) ?? {};
  const of = unit ?? one.unit;
  const words = [low !== null && low !== undefined && `below ${neat(low, of)}`, high !== null && high !== undefined && `above ${neat(high, of)}`,
    rate && `faster than ${neat(rate, of)} a second`, stale_s && `silent for ${duration(stale_s)}`].filter(Boolean).join(", ");
  return words && `rings ${words}${delay_s ? ` for ${duration(delay_s)}` : ""}`.replaceAll(".0 s", " s");
}

const line = (one) => el("div", { class: "line", data: { alarm: one.name } },
  el("b", {}, one.name), el("span", { class: "why" }, reason(one)), el("small", {}, `${one.state === "returned" ? "over since" : "since"} ${clock(one.since_ns / 1e6)}`),
  operator ? el("button", { onclick: () => acknowledge(one.name) }, "Acknowledge") : false);

/** The words of the lab, with numbers that no person reads at a glance in their unit's prefix. */
function readable(why, unit) {
  if (!unit) return why;
  const written = (words) => words.replaceAll(` ${unit}`, ` ${unitSaid(unit)}`);
  const number = new RegExp(`(-?\\d[\\d.]*(?:e[-+]?\\d+)?) ${unit.replace(/[^\w]/g, "\\$&")}(?![\\w/])`, "g");
  return written(why.replace(number, (as, n) => (/e/.test(n) || Math.abs(Number(n)) < 1e-3 ? neat(Number(n), unit) : as)));
}

function reason(one) {
  const why = readable(one.why, one.unit) || (one.state === "returned" ? "it was raised, and nobody knows yet" : "");
  const then = one.state === "returned" && one.why ? `was: ${why}` : why;
  return one.note ? `${then} · ${one.note}` : then;
}

function update(one) {
  let parts = cards.get(one.name);
  if (!parts) {
    parts = { state: el("span", { class: "chip" }), value: el("div", { class: "big" }), old: el("small", { hidden: true }), why: el("p", {}), limits: el("p", { class: "soft" }), since: el("b", {}), by: el("b", {}), raised: el("b", {}) };
    parts.button = el("button", { class: "main", onclick: () => acknowledge(one.name) }, "Acknowledge");
    const does = [one.latch && "latches", one.pause_scan && "pauses scans", one.stop_all && "stops everything"].filter(Boolean).join(", ");
    parts.box = el("article", { class: "card alarm", data: { alarm: one.name } },
      el("div", { class: "head" }, el("h2", {}, one.name), parts.state),
      el("small", {}, `${one.instrument} · ${named(one.channel)}${does ? ` · ${does}` : ""}`), parts.value, parts.old, parts.why, parts.limits, one.note ? el("p", { class: "soft" }, one.note) : false,
      el("div", { class: "facts" }, el("span", {}, "since"), parts.since, el("span", {}, "acknowledged by"), parts.by, el("span", {}, "raised"), parts.raised), parts.button);
    cards.set(one.name, parts);
    list.append(parts.box);
  }
  parts.box.dataset.state = one.state;
  parts.box.style.order = ORDER.indexOf(one.state);
  put(parts.state, one.state);
  put(parts.value, one.value === null ? "–" : saidOf(one.channel, one.value, one.unit));
  parts.value.title = one.value_ns ? `at ${clock(one.value_ns / 1e6, true)}` : "no value yet";
  parts.old.hidden = one.value === null || !isOld(one.instrument, one.channel, one.value_ns / 1e6);
  parts.box.classList.toggle("stale", !parts.old.hidden);
  put(parts.old, parts.old.hidden ? "" : `old: ${ago(labTime() - one.value_ns / 1e6)}, at ${clock(one.value_ns / 1e6)}`);
  put(parts.why, one.state === "returned" ? `All is well again; it was: ${readable(one.why, one.unit)}` : readable(one.why, one.unit));
  put(parts.limits, limits(one));
  put(parts.since, clock(one.since_ns / 1e6));
  put(parts.by, one.by || "–");
  put(parts.raised, one.raised === 1 ? "once" : one.raised ? `${one.raised} times` : "never");
  parts.button.hidden = !operator || !RINGS.has(one.state);
}

function acknowledge(name) {
  askName({ title: `Acknowledge ${name}?`, words: "The alarm goes on until its cause is gone; it says that somebody knows.", button: "Acknowledge", once: true }, async (who) => {
    try {
      await link.act("acknowledge", name, { who });
    } catch (error) {
      toast(`${name} is not acknowledged`, error.message, "bad");
    }
  });
}
