// The panel of one instrument, made from what it says it can do. Limits are shown here and enforced by the lab.
import { clock, el, mood, named, plain, put, said, toast } from "./format.js";
import { act } from "./link.js";

const BETTER_ELSEWHERE = /\.(position|velocity|limits|moving|state)$|^armed$|^shutter$|^frames_lost$|^streaming$/;
let box, facts = null, live = [], now = null, closed = () => {};
const begun = new Map();

export function build(container, onClose) {
  box = container;
  closed = onClose;
}

export const current = () => facts?.id ?? null;

export function close() {
  facts = null;
  box.hidden = true;
  document.body.classList.remove("panel");
  closed();
}

export function open(instrument, mayChange) {
  facts = instrument;
  live = [];
  const { panel } = instrument;
  const title = el("div", { class: "row" }, el("span", { class: "dot" }), el("h2", {}, instrument.id), el("span", { class: `chip ${instrument.runtime}` }, instrument.runtime.toUpperCase()));
  const state = el("p", { class: "soft", style: "margin:4px 0 0" });
  live.push(() => {
    const one = now.instruments[instrument.id] ?? { state: "gone", message: "" };
    title.firstChild.className = `dot ${mood(one.state)}`;
    put(state, one.message ? `${one.state}: ${one.message}` : one.state);
  });
  box.replaceChildren(el("button", { class: "quiet icon close", "aria-label": "Close", onclick: close }, "✕"), title, el("p", { class: "soft", style: "margin:2px 0 0;overflow-wrap:anywhere" }, instrument.driver), state,
    ...panel.axes.map((axis) => axisOf(instrument.id, axis)), ...shutterOf(instrument), ...running(instrument), ...settings(instrument), ...operations(instrument), ...rest(instrument));
  if (!mayChange) box.querySelectorAll("button:not(.close), input, select").forEach((one) => { one.disabled = true; one.title = "Your token lets you look only."; });
  box.hidden = false;
  document.body.classList.add("panel");
  if (now) update(now);
}

export function update(moment) {
  now = moment;
  if (facts) for (const refresh of live) refresh();
}

const entry = (id, name) => now?.parameters.find((p) => p.instrument === id && p.name === name);

async function done(id, what, body, quiet = false) {
  try {
    const answer = await act("command", id, body);
    if (!quiet) toast(`${id}: ${what}`, answer.result === null || answer.result === undefined ? "Done." : plain(answer.result), "good");
    return answer.result;
  } catch (error) {
    const how = [400, 403, 404, 409, 422, 429].includes(error.status) ? "refused" : "not done";
    toast(`${id}: ${what} ${how}`, error.fate ? `${error.message} (${error.fate})` : error.message, "bad");
    throw error;
  }
}

const run = (id, what, body, quiet) => done(id, what, body, quiet).catch(() => null);

function axisOf(id, axis) {
  const where = el("div", { class: "big", data: { axis: axis.name } }, "–");
  const state = el("span", { class: "soft" });
  const knob = el("i", {});
  const bar = el("div", { class: "bar", hidden: true }, el("i", {}));
  const told = el("small", {});
  const target = el("input", { type: "number", step: "any", placeholder: "go to", "aria-label": `Target of ${axis.name}`, data: { target: axis.name } });
  const step = el("input", { type: "number", step: "any", value: "1", style: "width:84px;flex:0 1 84px", "aria-label": "Step" });
  const move = () => target.value !== "" && run(id, `move ${axis.name}`, { kind: "execute", name: "move", args: [axis.name, Number(target.value)] }, true);
  const by = (sign) => run(id, `step ${axis.name}`, { kind: "execute", name: "move_relative", args: [axis.name, sign * Number(step.value)] }, true);
  target.addEventListener("keydown", (e) => e.key === "Enter" && move());
  live.push(() => {
    const at = entry(id, `${axis.name}.position`);
    const value = now.values[`${id}.${axis.name}.position`];
    const newest = value && (!at || value[0] * 1e6 > at.t_ns) ? value[1] : at?.value;
    put(where, newest === undefined ? "–" : `${newest.toFixed(4)}\u202f${axis.unit}`);
    where.style.opacity = at?.stale ? 0.5 : 1;
    put(state, entry(id, `${axis.name}.state`)?.value ?? "");
    const limits = entry(id, `${axis.name}.limits`)?.value ?? axis.limits;
    if (limits && newest !== undefined) knob.style.left = `${Math.max(0, Math.min(100, ((newest - limits[0]) / (limits[1] - limits[0])) * 100))}%`;
    progress(id, axis, newest, bar, told);
  });
  return el("div", { class: "axis" }, el("div", { class: "head" }, el("b", {}, `Axis ${axis.name}`), state), where,
    axis.limits ? el("div", { class: "track" }, knob) : false, axis.limits ? el("div", { class: "ends" }, el("span", {}, said(axis.limits[0], axis.unit)), el("span", {}, said(axis.limits[1], axis.unit))) : false,
    bar, told,
    el("div", { class: "row", style: "margin-top:6px" }, el("span", { class: "field", style: "flex:1 1 110px" }, target, el("em", {}, axis.unit)), el("button", { class: "main", onclick: move }, "Move"), el("button", { class: "danger", onclick: () => act("stop", id, { axis: axis.name }).catch((e) => toast(`${id}: stop failed`, e.message, "bad")) }, "Stop")),
    el("div", { class: "row", style: "margin-top:7px" }, el("button", { onclick: () => by(-1), "aria-label": "Step back" }, "−"), step, el("button", { onclick: () => by(1), "aria-label": "Step on" }, "+"), el("button", { onclick: () => run(id, `home ${axis.name}`, { kind: "execute", name: "home", args: [axis.name] }, true) }, "Home")));
}

function progress(id, axis, position, bar, told) {
  const operation = now.operations.find((o) => o.instrument === id && o.axis === axis.name && o.state === "in hand");
  bar.hidden = !operation;
  put(told, "");
  if (!operation) return;
  if (!begun.has(operation.number)) begun.set(operation.number, position);
  const from = begun.get(operation.number);
  const known = operation.target !== null && from !== undefined && from !== operation.target;
  bar.classList.toggle("unknown", !known);
  const part = known ? Math.max(0, Math.min(1, (position - from) / (operation.target - from))) : 0.35;
  bar.firstChild.style.width = `${part * 100}%`;
  put(told, operation.target === null ? `${operation.what} …` : `to ${said(operation.target, axis.unit)}, ${(part * 100).toFixed(0)} %`);
}

function shutterOf({ id, panel }) {
  const shutter = panel.settings.find((s) => s.name === "shutter" && s.settable);
  const arms = panel.operations.some((o) => o.name === "arm");
  if (!shutter && !arms) return [];
  const state = el("b", {});
  live.push(() => put(state, `${entry(id, "shutter")?.value ? "open" : "closed"}${arms ? (entry(id, "armed")?.value ? ", armed" : ", not armed") : ""}`));
  return [el("h3", {}, "Shutter"), el("div", { class: "row" }, state, el("button", { onclick: () => run(id, "open", { kind: "set", name: "shutter", value: true }) }, "Open"),
    el("button", { class: "main", onclick: () => run(id, "close", { kind: "set", name: "shutter", value: false }) }, "Close"),
    arms && panel.arming ? el("button", { class: "danger", onclick: () => run(id, "arm", { kind: "execute", name: "arm" }) }, "Arm") : false,
    arms ? el("button", { onclick: () => run(id, "disarm", { kind: "execute", name: "disarm" }) }, "Disarm") : false),
  arms && !panel.arming ? el("p", { class: "soft" }, "It is armed at the lab itself, not from here: the lab file does not allow it.") : ""];
}

function running({ id, panel, runtime }) {
  if (!panel.camera && !panel.channels.length && !panel.axes.length && runtime === "v2") return [];
  const title = panel.camera ? "Stream" : "Readings";
  return [el("h3", {}, title), el("div", { class: "row" },
    el("button", { onclick: () => run(id, "start", { kind: "start" }) }, "Start"), el("button", { onclick: () => run(id, "end", { kind: "finish" }) }, "End"),
    panel.camera ? el("button", { onclick: () => run(id, "snap", { kind: "snap" }) }, "Snap one") : false,
    ...panel.channels.map((c) => el("button", { onclick: () => act("read", id, { channel: c.name }).then((r) => toast(`${id}.${c.name}`, said(r.value, r.unit), "good"), (e) => toast(`${id}.${c.name}: not read`, e.message, "bad")) }, `Read ${c.name}`)))];
}

function settings({ id, panel }) {
  const shown = panel.settings.filter((s) => !BETTER_ELSEWHERE.test(s.name) || /\.velocity$/.test(s.name));
  if (!shown.length) return [];
  const order = (s) => (entry(id, s.name) || /wavelength|exposure|binning|gain|roi/.test(s.name) ? 0 : 1);
  const sorted = [...shown].sort((a, b) => order(a) - order(b));
  const make = (list) => el("div", { class: "form" }, list.flatMap((s) => setting(id, s)));
  const parts = [el("h3", {}, "Settings"), make(sorted.slice(0, 8))];
  if (sorted.length > 8) parts.push(el("details", {}, el("summary", {}, `${sorted.length - 8} more`), make(sorted.slice(8))));
  return parts;
}

function setting(id, { name, unit, settable, words }) {
  const input = el("input", { "aria-label": `${id} ${name}`, placeholder: "–", readonly: settable ? null : "", data: { setting: name } });
  const label = el("label", { title: words ?? "" }, named(name));
  const read = () => run(id, `read ${name}`, { kind: "get", name }, true).then((v) => { if (v !== null) input.value = plain(v); });
  const set = () => run(id, `set ${name}`, { kind: "set", name, value: typed(input.value) }, true).then((v) => { if (v !== null) { input.value = plain(v); toast(`${id}: ${name}`, said(v, unit), "good"); } });
  input.addEventListener("keydown", (e) => e.key === "Enter" && settable && set());
  live.push(() => {
    const known = entry(id, name);
    if (known && document.activeElement !== input && !input.dataset.edited) input.value = typeof known.value === "object" && known.value !== null && !Array.isArray(known.value) ? Object.values(known.value).join(", ") : plain(known.value);
    const limits = entry(id, `limits_${name.split("_").at(-1)}`)?.value;
    if (limits) input.title = `${limits[0]} to ${limits[1]} ${unit}`;
  });
  input.addEventListener("input", () => { input.dataset.edited = "1"; });
  input.addEventListener("blur", () => { delete input.dataset.edited; });
  const field = el("span", { class: "field" }, input, unit ? el("em", {}, unit) : false);
  return [label, field, settable ? el("button", { onmousedown: (e) => e.preventDefault(), onclick: set }, "Set") : el("button", { onclick: read }, "Read")];
}

function operations({ id, panel }) {
  const hidden = new Set(["arm", "disarm", "set_wavelength", "configure_roi", "set_timing", "set_gain", "set_binning"]);
  const shown = panel.operations.filter((o) => !hidden.has(o.name));
  if (!shown.length) return [];
  const make = ({ name, arguments: wanted, words }) => {
    const inputs = wanted.map((a) => el("input", { placeholder: a.name.replace(/_/g, " "), "aria-label": a.name, title: a.required ? a.type : `${a.type}; may be empty`, value: a.name === "axis" && panel.axes.length ? panel.axes[0].name : "" }));
    const go = () => {
      const args = inputs.map((i) => (i.value === "" ? null : typed(i.value)));
      while (args.length && args.at(-1) === null) args.pop();
      run(id, name.replace(/_/g, " "), { kind: "execute", name, args });
    };
    return el("div", { class: "op" }, words ? el("p", {}, words.replaceAll("`", "")) : false, el("div", { class: "row" }, inputs, el("button", { data: { operation: name }, onclick: go }, name.replace(/_/g, " "))));
  };
  return [el("h3", {}, "Operations"), ...shown.slice(0, 6).map(make), shown.length > 6 ? el("details", {}, el("summary", {}, `${shown.length - 6} more`), ...shown.slice(6).map(make)) : ""];
}

function rest({ id }) {
  const list = el("div", { class: "facts" });
  const title = el("h3", {}, "Done from pages");
  live.push(() => {
    const mine = now.operations.filter((o) => o.instrument === id).slice(-4).reverse();
    title.hidden = !mine.length;
    list.replaceChildren(...mine.flatMap((o) => [el("span", { title: o.detail }, `${clock(o.since_ns / 1e6)}  ${o.what}${o.target === null ? "" : ` ${plain(o.target)}`}`), el("b", { class: o.state === "failed" ? "hot" : "", title: o.detail }, o.state)]));
  });
  return [title, list, el("h3", {}, "Care"), el("div", { class: "row" },
    el("button", { class: "danger", onclick: () => act("stop", id, {}).then(() => toast(`${id}: stopped`, "", "good"), (e) => toast(`${id}: stop failed`, e.message, "bad")) }, "Stop"),
    el("button", { onclick: () => run(id, "recover", { kind: "recover" }) }, "Recover"),
    el("button", { onclick: () => act("restart", id, {}).then(() => toast(`${id}: restarted`, "", "good"), (e) => toast(`${id}: not restarted`, e.message, "bad")) }, "Restart"))];
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
