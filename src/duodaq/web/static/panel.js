// The panel of one instrument, made from what it says it can do. Limits are shown here and enforced by the lab.
import { axisPart } from "./axis.js";
import { controlPart } from "./control.js";
import { clock, el, exact, mood, named, numberIn, plain, put, said, saidOf, unitSaid } from "./format.js";
import { act } from "./link.js";
import { entry, isOld, present, reading } from "./moment.js";
import { shutterOf, shutterPart } from "./shutter.js";
import { held, note } from "./stopping.js";
import { toast } from "./toasts.js";

const BETTER_ELSEWHERE = /\.(position|velocity|limits|moving|state)$|^armed$|^shutter$|^frames_lost$|^streaming$/;
let box, facts = null, live = [], closed = () => {}, cameFrom = null;

export function build(container, onClose) {
  box = container;
  closed = onClose;
}

export const current = () => facts?.id ?? null;

export function close() {
  facts = null;
  live = [];
  box.hidden = true;
  document.body.classList.remove("panel");
  if (box.contains(document.activeElement) || document.activeElement === document.body) cameFrom?.focus({ preventScroll: true });
  closed();
}

export function open(instrument, mayChange) {
  facts = instrument;
  live = [];
  const { panel } = instrument;
  const another = box.hidden || box.dataset.id !== instrument.id;
  if (!box.contains(document.activeElement)) cameFrom = document.activeElement;
  const title = el("div", { class: "row" }, el("span", { class: "dot" }), el("h2", { tabIndex: -1 }, instrument.id), el("span", { class: `chip ${instrument.runtime}` }, instrument.runtime.toUpperCase()));
  const state = el("p", { class: "soft", style: "margin:4px 0 0" });
  live.push(() => {
    const one = present().instruments[instrument.id] ?? { state: "gone", message: "" };
    title.firstChild.className = `dot ${mood(one.state)}`;
    put(state, one.message ? `${one.state}: ${one.message}` : one.state);
  });
  const shutter = shutterOf(instrument);
  const does = (what, body, quiet) => run(instrument.id, what, body, quiet);
  const moves = (what, body) => done(instrument.id, what, body, true).then(() => true, () => false);
  box.replaceChildren(el("button", { class: "quiet icon close", "aria-label": "Close", onclick: close }, "✕"), title, el("p", { class: "soft", style: "margin:2px 0 0;overflow-wrap:anywhere" }, instrument.driver), state, controlPart(instrument.id, live, mayChange),
    ...panel.axes.map((axis) => axisPart(instrument.id, axis, moves, live, mayChange)), ...(shutter ? shutterPart(instrument, shutter, does, live, mayChange) : []),
    ...running(instrument, mayChange), ...settings(instrument, mayChange), ...operations(instrument, shutter?.hides ?? [], mayChange), ...rest(instrument));
  if (!mayChange) box.querySelectorAll("button:not(.close), input, select").forEach((one) => { one.disabled = true; one.title = "Your token lets you look only."; });
  box.hidden = false;
  box.dataset.id = instrument.id;
  box.setAttribute("aria-label", `Instrument ${instrument.id}`);
  document.body.classList.add("panel");
  if (another) {
    box.scrollTop = 0;
    title.querySelector("h2").focus({ preventScroll: true });
  }
  update();
}

export function update() {
  if (facts && present()) for (const refresh of live) refresh();
}

async function done(id, what, body, quiet = false) {
  try {
    const answer = await act("command", id, body);
    if (!quiet) toast(`${id}: ${what}`, answer.result === null || answer.result === undefined ? "Done." : saidOf(body.name ?? "", answer.result, ""), "good");
    return answer.result;
  } catch (error) {
    const how = [400, 403, 404, 409, 422, 429].includes(error.status) ? "refused" : "not done";
    toast(`${id}: ${what} ${how}`, error.fate ? `${error.message} (${error.fate})` : error.message, "bad");
    throw error;
  }
}

const run = (id, what, body, quiet) => done(id, what, body, quiet).catch(() => null);

function running({ id, panel, runtime }, mayChange) {
  if (!panel.camera && !panel.channels.length && !panel.axes.length && runtime === "v2") return [];
  const title = panel.camera ? "Stream" : "Readings";
  const start = el("button", { onclick: () => run(id, "start", { kind: "start" }) }, "Start");
  if (panel.starts_held) live.push(() => held([start], mayChange));
  return [el("h3", {}, title), el("div", { class: "row" },
    start, el("button", { onclick: () => run(id, "end", { kind: "finish" }) }, "End"),
    panel.camera ? el("button", { onclick: () => run(id, "snap", { kind: "snap" }) }, "Snap one") : false,
    ...panel.channels.map((c) => el("button", { onclick: () => act("read", id, { channel: c.name }).then((r) => toast(`${id}.${c.name}`, said(r.value, r.unit), "good"), (e) => toast(`${id}.${c.name}: not read`, e.message, "bad")) }, `Read ${c.name}`)))];
}

function settings({ id, panel }, mayChange) {
  const shown = panel.settings.filter((s) => !BETTER_ELSEWHERE.test(s.name) || /\.velocity$/.test(s.name));
  if (!shown.length) return [];
  const order = (s) => (entry(id, s.name) || /wavelength|exposure|binning|gain|roi/.test(s.name) ? 0 : 1);
  const sorted = [...shown].sort((a, b) => order(a) - order(b));
  const make = (list) => el("div", { class: "form" }, list.flatMap((s) => setting(id, s, mayChange)));
  const title = el("h3", {}, "Settings");
  const parts = [title, ...refusedNote(shown.filter((s) => s.settable)), make(sorted.slice(0, 8))];
  if (sorted.length > 8) parts.push(el("details", {}, el("summary", {}, `${sorted.length - 8} more`), make(sorted.slice(8))));
  live.push(() => { title.hidden = !parts.some((part) => part.matches("details") || part.querySelector("label:not([hidden])")); });
  return parts;
}

function setting(id, { name, unit, settable, words, held: isHeld }, mayChange) {
  const input = el("input", { "aria-label": `${id} ${name}`, placeholder: "–", readonly: settable ? null : "", data: { setting: name } });
  const label = el("label", { title: words ?? "", style: words ? "cursor:help" : null }, named(name));
  const read = () => run(id, `read ${name}`, { kind: "get", name }, true).then((v) => { if (v !== null) input.value = exact(v); });
  const set = () => isValue(input, entry(id, name)?.value) && run(id, `set ${name}`, { kind: "set", name, value: typed(input.value) }, true).then((v) => { if (v !== null) { input.value = exact(v); toast(`${id}: ${name}`, said(v, unit), "good"); } });
  input.addEventListener("keydown", (e) => e.key === "Enter" && settable && set());
  live.push(() => {
    const known = entry(id, name);
    if (known && document.activeElement !== input && !input.dataset.edited) input.value = typeof known.value === "object" && known.value !== null && !Array.isArray(known.value) ? Object.values(known.value).join(", ") : exact(known.value);
    field.classList.toggle("stale", Boolean(input.value && (reading(id, name)?.stale ?? isOld(id, name, 0))));
    const limits = entry(id, `limits_${name.split("_").at(-1)}`)?.value;
    if (limits) input.title = `${limits[0]} to ${limits[1]} ${unitSaid(unit)}`;
  });
  input.addEventListener("input", () => { input.dataset.edited = "1"; });
  input.addEventListener("blur", () => { delete input.dataset.edited; });
  const field = el("span", { class: "field" }, input, unit ? el("em", {}, unitSaid(unit)) : false);
  const does = settable ? "Set" : "Read";
  // Of an axis that never said how fast it goes there is nothing to show; its operations set it.
  if (/\.velocity$/.test(name)) live.push(() => { for (const one of [label, field, button]) one.hidden = entry(id, name) === undefined; });
  const button = el("button", { "aria-label": `${does} ${named(name)}`, onmousedown: (e) => e.preventDefault(), onclick: settable ? set : read }, does);
  if (settable && isHeld) live.push(() => held([button], mayChange));
  return [label, field, button];
}

function operations({ id, panel }, elsewhere, mayChange) {
  // What the panel has a field for already: a camera's sizes, and an actor's wavelength.
  const hidden = new Set([...elsewhere, ...(panel.camera ? ["configure_roi", "set_timing", "set_gain", "set_binning"] : []), ...(panel.settings.some((s) => s.name === "wavelength" && s.settable) ? ["set_wavelength"] : [])]);
  const shown = panel.operations.filter((o) => !hidden.has(o.name));
  if (!shown.length) return [];
  const make = ({ name, arguments: wanted, words, held: isHeld }) => {
    const inputs = wanted.map((a) => argument(a, panel.axes));
    const go = () => {
      if (!inputs.every(({ field }) => field.type === "checkbox" || field.value === "" || isValue(field, ""))) return;
      const args = inputs.map(({ field }, n) => (field.type === "checkbox" ? field.checked : field.value === "" ? null : typed(field.value)) ?? wanted[n].default ?? null);
      while (args.length && args.at(-1) === null) args.pop();
      run(id, name.replace(/_/g, " "), { kind: "execute", name, args });
    };
    const button = el("button", { data: { operation: name }, onclick: go }, name.replace(/_/g, " "));
    if (isHeld) live.push(() => held([button], mayChange));
    return el("div", { class: "op" }, words ? el("p", {}, words.replaceAll("`", "")) : false, el("div", { class: "row" }, inputs.map((i) => i.shown), button));
  };
  return [el("h3", {}, "Operations"), ...refusedNote(shown), ...shown.slice(0, 6).map(make), shown.length > 6 ? el("details", {}, el("summary", {}, `${shown.length - 6} more`), ...shown.slice(6).map(make)) : ""];
}

/** Where one argument is typed in, and what is shown of it: a box to tick, or a field that says what it is without a word. */
function argument({ name, type, required, default: usual }, axes) {
  const words = name.replace(/_/g, " ");
  if (typeof usual === "boolean") {
    const field = el("input", { type: "checkbox", "aria-label": name, checked: usual, title: `usually ${plain(usual)}` });
    return { field, shown: el("label", { class: "tick" }, field, words) };
  }
  if (type === "bool") {
    const field = el("select", { "aria-label": name }, ["", "yes", "no"].map((v) => el("option", { value: v }, v || words)));
    return { field, shown: field };
  }
  const hint = usual === undefined || usual === "" ? words : `${words}: ${plain(usual)}`;
  const title = required ? type : `${type ? `${type}; ` : ""}may be empty${usual === undefined ? "" : `: ${plain(usual)} then`}`;
  const field = el("input", { placeholder: hint, size: Math.max(8, hint.length), "aria-label": name, title, value: name === "axis" && axes.length ? axes[0].name : "" });
  return { field, shown: field };
}

function rest({ id }) {
  const list = el("div", { class: "facts" });
  const title = el("h3", {}, "Done from pages");
  live.push(() => {
    const mine = present().operations.filter((o) => o.instrument === id).slice(-4).reverse();
    title.hidden = !mine.length;
    list.replaceChildren(...mine.flatMap((o) => [el("span", { title: o.detail }, `${clock(o.since_ns / 1e6)}  ${o.what}${o.target === null ? "" : ` ${plain(o.target)}`}`), el("b", { class: o.state === "failed" ? "hot" : "", title: o.detail }, o.state)]));
  });
  return [title, list, el("h3", {}, "Care"), el("div", { class: "row" },
    el("button", { class: "danger", onclick: () => act("stop", id, {}).then(() => toast(`${id}: stopped`, "", "good"), (e) => toast(`${id}: stop failed`, e.message, "bad")) }, "Stop"),
    el("button", { onclick: () => run(id, "recover", { kind: "recover" }) }, "Recover"),
    el("button", { onclick: () => act("restart", id, {}).then(() => toast(`${id}: restarted`, "", "good"), (e) => toast(`${id}: not restarted`, e.message, "bad")) }, "Restart"))];
}

/** A line for what is refused while a stop is in force, if some of it is. */
const refusedNote = (list) => (list.some((one) => one.held) ? [note(live)] : []);

/** Whether something that can be sent is typed there; if not it is said, and nothing is sent. */
function isValue(field, known) {
  const text = field.value.trim();
  const isText = typeof known === "string" && known !== "";
  const numbers = text.split(",").map((part) => part.trim());
  const odd = numbers.some((part) => /^[-+]?(nan|inf(inity)?)$/i.test(part) || (/^[-+.\d]/.test(part) && Math.abs(Number(part)) === Infinity));
  const broken = typeof known === "number" && /^[-+.,\d\s]+$/.test(text) && Number.isNaN(numberIn(text));
  const said = text === "" && !isText ? "Type a value first. Nothing was sent." : (odd && !isText) || broken ? "This is no number that can be sent." : "";
  field.setCustomValidity(said);
  if (said) field.reportValidity();
  field.setCustomValidity("");
  return !said;
}

function typed(text) {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  if (trimmed === "yes" || trimmed === "no") return trimmed === "yes";
  if (/^[-+.\d]/.test(trimmed) && !Number.isNaN(Number(trimmed))) return Number(trimmed);
  if (/^[-+.\d\s,]+$/.test(trimmed) && trimmed.includes(",")) return trimmed.split(",").map(Number);
  try {
    return JSON.parse(trimmed);
  } catch {
    return text;
  }
}
