// One axis in a panel: where it is (readback), where it was sent (setpoint), within which limits, and what moves it.
import { ago, el, neat, numberIn, put, saidOf, unitSaid } from "./format.js";
import { act } from "./link.js";
import { entry, labTime, present, reading } from "./moment.js";
import { held, note } from "./stopping.js";
import { toast } from "./toasts.js";

const STEPS = [0.001, 0.01, 0.1, 1, 10];
const begun = new Map();

/** `run(what, body)` has the lab do something; false came of what was refused. */
export function axisPart(id, axis, run, live, mayChange) {
  const where = el("div", { class: "big", data: { axis: axis.name } }, "–");
  const when = el("small", {});
  const setpoint = el("b", { data: { setpoint: axis.name } });
  const state = el("span", { class: "chip" });
  const knob = el("i", {});
  const goal = el("i", { class: "goal", hidden: true });
  const bar = el("div", { class: "bar", hidden: true, role: "progressbar", "aria-label": `Progress of ${axis.name}` }, el("i", {}));
  const about = `limits-${id}-${axis.name}`;
  const target = el("input", { type: "text", autocomplete: "off", placeholder: "go to", inputmode: "decimal", "aria-label": `Target of ${axis.name}, ${axis.unit}`, "aria-describedby": axis.limits ? about : null, data: { target: axis.name } });
  const step = el("input", { type: "text", autocomplete: "off", value: String(stepFor(axis.limits)), list: `steps-${id}-${axis.name}`, inputmode: "decimal", "aria-label": `Step of ${axis.name}, ${axis.unit}` });
  const limits = el("small", { id: about });
  let edited = false;
  let newest;
  const follow = () => { if (newest !== undefined) target.value = newest.toFixed(4).replace(/\.?0+$/, ""); };
  const move = async () => {
    const wish = target.value;
    if (!isNumber(target)) return;
    edited = true;
    const done = await run(`move ${axis.name}`, { kind: "execute", name: "move", args: [axis.name, Number(wish)] });
    edited = false;
    if (!done && target.value === wish) follow();
  };
  const by = (sign) => isNumber(step) && run(`step ${axis.name}`, { kind: "execute", name: "move_relative", args: [axis.name, sign * Number(step.value)] });
  const does = (name) => axis.does?.includes(name) ?? true;
  const back = el("button", { onclick: () => by(-1), "aria-label": "Step back" });
  const on = el("button", { onclick: () => by(1), "aria-label": "Step on" });
  const go = el("button", { class: "main", onclick: move }, "Move");
  const home = el("button", { onclick: () => run(`home ${axis.name}`, { kind: "execute", name: "home", args: [axis.name] }) }, "Home");
  target.addEventListener("keydown", (e) => e.key === "Enter" && move());
  target.addEventListener("input", () => { edited = target.value !== ""; });
  live.push(() => {
    const at = reading(id, `${axis.name}.position`);
    newest = at?.value;
    put(where, newest === undefined ? "–" : saidOf("position", newest, axis.unit));
    where.style.opacity = at?.stale ? 0.5 : 1;
    put(when, at ? `${at.stale ? "no longer kept up to date, " : ""}${at.from} ${ago(labTime() - at.t_ms)}` : "not read yet");
    const how = entry(id, `${axis.name}.state`)?.value;
    state.hidden = how === undefined;
    put(state, how ?? "");
    const ends = entry(id, `${axis.name}.limits`)?.value ?? axis.limits;
    const place = (value) => `${Math.max(0, Math.min(100, ((value - ends[0]) / (ends[1] - ends[0])) * 100))}%`;
    if (ends && newest !== undefined) knob.style.left = place(newest);
    const last = present().operations.filter((o) => o.instrument === id && o.axis === axis.name).at(-1);
    goal.hidden = !(ends && last?.target !== undefined && last?.target !== null && last.state === "in hand");
    if (!goal.hidden) goal.style.left = place(last.target);
    put(setpoint, sent(last, axis.unit, newest, entry(id, `${axis.name}.moving`)?.value) + progress(last?.state === "in hand" ? last : null, newest, bar));
    setpoint.title = last?.state === "failed" ? last.detail : "";
    if (!edited && document.activeElement !== target) follow();
    held([back, on, go, home], mayChange);
    const beyond = ends && target.value !== "" && (Number(target.value) < ends[0] || Number(target.value) > ends[1]);
    target.classList.toggle("beyond", Boolean(beyond));
    if (ends) put(limits, `${beyond ? "beyond its limits: " : "limits "}${neat(ends[0], axis.unit)} to ${neat(ends[1], axis.unit)}`);
    put(back, `− ${step.value}`);
    put(on, `+ ${step.value}`);
    if (newest !== undefined && !back.disabled) for (const [button, sign] of [[back, -1], [on, 1]]) button.title = `to ${saidOf("position", newest + sign * Number(step.value), axis.unit)}`;
  });
  const stop = () => act("stop", id, { axis: axis.name }).then(() => toast(`${id}: ${axis.name} is stopped`, "", "good"), (e) => toast(`${id}: stop failed`, e.message, "bad"));
  return el("div", { class: "axis", role: "group", "aria-label": `Axis ${axis.name}` },
    el("div", { class: "head" }, el("b", {}, `Axis ${axis.name}`), state),
    el("div", { class: "pair" }, el("span", {}, "Readback"), el("div", {}, where, when)),
    axis.limits ? el("div", { class: "track" }, goal, knob) : false, axis.limits ? el("div", { class: "ends" }, el("span", {}, neat(axis.limits[0], axis.unit)), el("span", {}, neat(axis.limits[1], axis.unit))) : false,
    el("div", { class: "pair" }, el("span", {}, "Setpoint"), setpoint), bar, note(live),
    el("div", { class: "row", style: "margin-top:8px" }, does("move") ? [el("span", { class: "field", style: "flex:1 1 110px" }, target, el("em", {}, unitSaid(axis.unit))), go] : el("span", { class: "soft" }, "Its driver has no move(axis, position)."), el("button", { class: "danger", onclick: stop }, "Stop")),
    axis.limits ? limits : false,
    el("div", { class: "row", style: "margin-top:8px" }, does("move_relative") ? [back, el("span", { class: "field", style: "flex:0 1 104px" }, step, el("em", {}, unitSaid(axis.unit))), on] : false, does("home") ? home : false,
      el("datalist", { id: `steps-${id}-${axis.name}` }, STEPS.map((s) => el("option", { value: String(s) })))));
}

/** Whether a number is typed there; if not it is said, and nothing is sent. */
function isNumber(field) {
  const said = Number.isFinite(numberIn(field.value)) ? "" : "This is no number. Nothing was sent.";
  field.setCustomValidity(said);
  if (said) field.reportValidity();
  field.setCustomValidity("");
  return !said;
}

/** A step that takes some tens of them from end to end. */
function stepFor(limits) {
  return limits ? 10 ** Math.round(Math.log10(Math.max(1e-6, (limits[1] - limits[0]) / 25))) : 1;
}

/** Where it was sent. After a move that was refused or cut short that is where it stands, not what was asked for. */
function sent(operation, unit, position, moving) {
  if (!operation || (operation.state === "failed" && moving)) return "none from a page";
  if (operation.state === "failed") return position === undefined ? "not known" : `${saidOf("position", position, unit)}, where it stands`;
  const target = operation.target === null ? operation.what.replace(/_/g, " ") : saidOf("position", operation.target, unit);
  return operation.state === "in hand" ? target : `${target}, reached`;
}

function progress(operation, position, bar) {
  bar.hidden = !operation;
  if (!operation) return "";
  if (!begun.has(operation.number)) begun.set(operation.number, position);
  const from = begun.get(operation.number);
  const known = operation.target !== null && from !== undefined && from !== operation.target;
  bar.classList.toggle("unknown", !known);
  const part = known ? Math.max(0, Math.min(1, (position - from) / (operation.target - from))) : 0.35;
  bar.firstChild.style.width = `${part * 100}%`;
  if (!known) return " …";
  bar.setAttribute("aria-valuenow", (part * 100).toFixed(0));
  return `, ${(part * 100).toFixed(0)} % of the way`;
}
