// The way of each instrument from V2 to V4: where it is, what is still wanted, what its shadow finds, and what was done.
import { count, duration, el, listed, put, table } from "./format.js";
import { askName } from "./asking.js";
import { act } from "./link.js";
import { toast } from "./toasts.js";

const STAGES = { v2: "V2", shadow: "V2, with a shadow", v4: "V4", retired: "V4, for good" };
const NEXT = {
  v2: "It lives in V2. A shadow runs the V4 driver beside it, without touching the wire.",
  shadow: "V2 has it. The V4 driver runs beside it and sends nothing.",
  v4: "It has moved. V2 takes it back at any time.",
  retired: "It has moved, and the lab file no longer says how it was in V2.",
};
const KINDS = { unit: "another unit", rounding: "rounded otherwise", value: "another value", axis: "another axis", missing: "V2 orders it, V4 does not", extra: "V4 orders it, V2 does not", rate: "V4 asks less often", silent: "V4 measures nothing", end: "V4's commands have no end", error: "an error on one side only", start: "the V4 driver did not start", blocked: "the V4 driver blocks its loop", died: "the V4 driver's process died" };
const ANSWERABLE = new Set(["contract", "safe state", "stop", "config", "docs"]);
const EVERY_MS = 1000;
const cards = new Map();
let box, list, rest, operator = false, timer = 0, asking = false;

export function build(container) {
  box = container;
  list = el("div", { class: "moving-list" });
  rest = el("p", { class: "soft" });
  box.className = "view stack";
  box.replaceChildren(list, rest);
}

export function greet(isOperator) {
  operator = isOperator;
  cards.clear();
  list.replaceChildren();
  if (!box.hidden) show();
}

/** Look, and look again for as long as it is in sight. */
export async function show() {
  clearTimeout(timer);
  if (box.hidden || asking) return;
  asking = true;
  try {
    if (!document.hidden) await look();
  } finally {
    asking = false;
    timer = setTimeout(show, EVERY_MS);
  }
}

async function look() {
  let all;
  try {
    const answer = await fetch("/api/migration");
    all = await answer.json();
    if (!answer.ok) throw new Error(all.detail);
  } catch (error) {
    put(rest, `It cannot be seen now: ${error.message}`);
    return;
  }
  const driver = (one) => one.checklist.find((item) => item.name === "driver");
  const movable = (one) => one.runtime === "v2" ? driver(one)?.met : one.log.some((entry) => entry.what === "moved");
  const ways = all.filter(movable);
  for (const id of [...cards.keys()]) if (!ways.some((one) => one.id === id)) cards.get(id).box.remove(), cards.delete(id);
  ways.forEach(update);
  const born = all.filter((one) => one.runtime === "v4" && !movable(one)).map((one) => one.id);
  const stay = all.filter((one) => one.runtime === "v2" && !movable(one)).map((one) => `${one.id}: ${driver(one)?.why ?? "no driver"}`);
  put(rest, [born.length ? `In V4 from the beginning: ${listed(born, 12)}.` : "", stay.length ? `No way to V4: ${stay.join("; ")}.` : ""].filter(Boolean).join(" ") || (ways.length ? "" : "There is no instrument."));
}

function update(one) {
  let parts = cards.get(one.id);
  if (!parts) {
    parts = { stage: el("span", { class: "chip" }), next: el("p", { class: "soft" }), buttons: el("div", { class: "row" }), wanted: el("div", {}), found: el("div", { class: "found" }), log: el("div", {}), said: {} };
    parts.box = el("article", { class: "card moving", data: { moving: one.id } }, el("div", { class: "head" }, el("h2", {}, one.id), parts.stage), parts.next, parts.buttons, parts.wanted, parts.found, parts.log);
    cards.set(one.id, parts);
    list.append(parts.box);
  }
  parts.one = one;
  parts.box.dataset.stage = one.stage;
  put(parts.stage, one.on_its_way ? "on its way" : STAGES[one.stage]);
  parts.stage.className = `chip ${one.runtime}`;
  put(parts.next, `${NEXT[one.stage]} ${one.driver.split(":").at(-1)}.`);
  // What can be pressed stays where it is until it changes; what the shadow says of itself changes each second.
  const lasting = one.checklist.map((item) => ({ ...item, why: item.name === "shadow" ? "" : item.why }));
  redraw(parts, "buttons", [one.stage, one.on_its_way, operator, lasting], () => buttons(one));
  redraw(parts, "wanted", [operator, lasting], () => checklist(one, parts));
  const shadow = one.checklist.find((item) => item.name === "shadow");
  if (shadow) put(parts.shadow, shadow.why);
  redraw(parts, "found", [one.stage, one.shadow ?? one.last_shadow], () => findings(one));
  redraw(parts, "log", one.log, () => log(one));
}

function redraw(parts, name, what, make) {
  const key = JSON.stringify(what);
  if (parts.said[name] === key) return;
  parts.said[name] = key;
  parts[name].replaceChildren(...make().filter(Boolean));
}

const unmet = (one) => one.checklist.filter((item) => !item.met);

function buttons(one) {
  if (one.on_its_way) return [el("p", { class: "soft" }, "It is on its way; commands wait.")];
  const button = (name, title, act, kind = "") => el("button", { class: kind, data: { do: name }, disabled: !operator, title: operator ? null : "Your token lets you look only.", onclick: act }, title);
  const begin = button("shadow", "Begin a shadow", () => go(one.id, { do: "shadow" }, "Its shadow runs"));
  const end = button("end_shadow", "End the shadow", () => go(one.id, { do: "end_shadow" }, "Its shadow has ended"));
  const over = button("cutover", "Move to V4 …", () => askCutover(cards.get(one.id).one), unmet(one).length ? "danger" : "main");
  const back = button("rollback", "Move back to V2 …", () => askRollback(one), "danger");
  return { v2: [begin, over], shadow: [end, over], v4: [back], retired: [] }[one.stage];
}

function checklist(one, parts) {
  parts.shadow = el("span", {});
  if (!one.checklist.length) return [];
  const why = (item) => (item.name === "shadow" ? parts.shadow : item.why);
  const answer = (item) => (!item.met && ANSWERABLE.has(item.name) && operator ? el("button", { data: { tick: item.name }, onclick: () => askTick(one, item) }, "Answer for it …") : false);
  const row = (item) => el("li", { class: item.met ? "met" : "wanted", data: { item: item.name } }, el("b", {}, `${item.met ? "✓" : "✗"} ${item.name}`), el("span", {}, why(item)), answer(item));
  return [el("h3", {}, unmet(one).length ? `Checklist: ${unmet(one).length} wanted` : "Checklist: met"), el("ul", { class: "items" }, one.checklist.map(row))];
}

function findings(one) {
  const report = one.shadow ?? one.last_shadow;
  if (!report) return [];
  const verdict = report.within ? "nothing differs" : `${report.findings.length} ${report.findings.length === 1 ? "difference" : "differences"}`;
  const facts = [
    ["looked for", duration(report.lasted_s)], ["measurements compared", count(report.values.compared)], ["of them the same", count(report.values.same)],
    ["orders matched", count(report.orders.matched)], ["missing in V4", count(report.orders.missing)], ["extra in V4", count(report.orders.extra)], ["errors in V2", count(report.errors.v2)], ["errors in V4", count(report.errors.v4)],
    ...Object.entries(report.timing_s).map(([what, p]) => [`${what}: p50, p99`, `${(p.p50 * 1000).toFixed(1)}, ${(p.p99 * 1000).toFixed(1)} ms`]),
  ];
  const hot = new Set(["missing in V4", "extra in V4", "errors in V4"]);
  const apart = Object.entries(report.not_comparable);
  return [
    el("h3", {}, one.shadow ? `Its shadow, now: ${verdict}` : `Its last shadow: ${verdict}`),
    el("div", { class: "facts" }, facts.flatMap(([what, value]) => [el("span", {}, what), el("b", { class: hot.has(what) && value !== "0" ? "hot" : "" }, value)])),
    report.findings.length ? table([["what differs", (f) => KINDS[f.kind] ?? f.kind, "wide"], ["about", (f) => f.subject, "wide"], ["V2", (f) => f.v2 || "–", "wide"], ["V4", (f) => f.v4 || "–", "wide"], ["times", (f) => count(f.count), "n"]], report.findings) : false,
    apart.length ? el("details", { data: { apart: one.id }, open: Boolean(cards.get(one.id)?.found.querySelector("details")?.open) }, el("summary", {}, `${apart.length} not comparable`), el("ul", { class: "items" }, apart.map(([what, why]) => el("li", {}, el("b", {}, what), el("span", {}, why))))) : false,
    el("a", { class: "button", href: `/api/migration/${encodeURIComponent(one.id)}/report`, download: `shadow-of-${one.id}.md` }, "Report in Markdown"),
  ];
}

function log(one) {
  if (!one.log.length) return [];
  const line = (entry) => el("li", {}, el("b", {}, `${new Date(entry.at).toLocaleString("sv-SE")}  ${entry.what}`), el("span", {}, ["to", "by", "item", "found", "why", "error", "owner"].filter((key) => entry[key]).map((key) => `${key} ${entry[key]}`).join(", ") + (entry.unmet ? `, although: ${entry.unmet.join("; ")}` : "") + (entry.gap_s ? `, ${(entry.gap_s * 1000).toFixed(0)} ms without an owner` : "")));
  return [el("h3", {}, "Done"), el("ul", { class: "items" }, one.log.slice(-6).reverse().map(line))];
}

function askCutover(one) {
  const lacks = unmet(one);
  const write = ticked("Have the lab file say so, for the next start");
  const words = lacks.length
    ? `Its checklist is not met. ${lacks.map((item) => `${item.name}: ${item.why}`).join("; ")}. Whoever moves it all the same is in the log by name.`
    : "Commands wait for a moment, and go on in V4; its stream goes on. It goes back by itself if V4 fails.";
  askName({ title: lacks.length ? `Force ${one.id} to V4?` : `Move ${one.id} to V4?`, words, button: lacks.length ? "Force it" : "Move it", leave: "Leave it", more: [write.shown] }, (who) =>
    go(one.id, { do: "cutover", who, force: lacks.length > 0, write: write.field.checked }, "V4 has it"));
}

function askRollback(one) {
  const write = ticked("Have the lab file say so, for the next start");
  const why = el("input", { placeholder: "why, for the log", "aria-label": "Why", maxLength: 500 });
  askName({ title: `Move ${one.id} back to V2?`, words: "Commands wait for a moment, and go on in V2; its stream goes on.", button: "Move it back", leave: "Leave it", more: [why, write.shown] }, (who) =>
    go(one.id, { do: "rollback", who, why: why.value, write: write.field.checked }, "V2 has it"));
}

function askTick(one, item) {
  askName({ title: `Answer for «${item.name}» of ${one.id}?`, words: `${item.why}. Who answers for it is in the log by name.`, button: "I answer for it", leave: "Leave it" }, (who) =>
    go(one.id, { do: "tick", item: item.name, who }, `${who} answers for ${item.name}`));
}

function ticked(words) {
  const field = el("input", { type: "checkbox" });
  return { field, shown: el("label", { class: "tick" }, field, words) };
}

async function go(id, body, words) {
  try {
    const done = await act("migrate", id, body);
    toast(`${id}: ${words}`, done.not_written ? [`The lab file does not say so: ${done.not_written}`] : done.gap_s ? `${(done.gap_s * 1000).toFixed(0)} ms without an owner` : "", done.not_written ? "bad" : "good", { of: "migration" });
  } catch (error) {
    toast(`${id}: refused`, error.message, "bad", { stays: true, of: "migration" });
  }
  look();
}
