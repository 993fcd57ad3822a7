// A shutter in a panel: open, closed or not known, armed or not, and what changes it.
import { ago, el, put } from "./format.js";
import { isOld, labTime, present, reading } from "./moment.js";
import { held, note } from "./stopping.js";

const OPENS = /^open(_shutter)?$/;
const CLOSES = /^(close|shut|close_shutter)$/;
const SAYS = ["shutter", "open", "is_open"];

/** How an instrument's shutter is worked; null if it has none. A driver's `open` alone may be its line's. */
export function shutterOf({ id, driver, panel }) {
  const plain = (which) => panel.operations.find((o) => which.test(o.name) && !o.arguments.some((a) => a.required))?.name;
  const arms = panel.operations.some((o) => o.name === "arm");
  if (panel.settings.some((s) => s.name === "shutter" && s.settable)) {
    return { arms, open: { kind: "set", name: "shutter", value: true }, close: { kind: "set", name: "shutter", value: false }, ask: null, hides: ["arm", "disarm", "open_shutter", "close_shutter"] };
  }
  const [open, close, ask] = [plain(OPENS), plain(CLOSES), plain(/^is_open$/)];
  const isShutter = /shutter/i.test(`${id} ${driver} ${open} ${close}`) || close === "shut";
  if (open && close && isShutter) {
    const execute = (name) => name && { kind: "execute", name };
    return { arms, open: execute(open), close: execute(close), ask: execute(ask), hides: ["arm", "disarm", open, close, ask] };
  }
  return arms ? { arms, open: null, close: null, ask: null, hides: ["arm", "disarm"] } : null;
}

/** Its part of the panel. `run(what, body, quiet)` has the lab do something and gives what came of it, null if nothing. */
export function shutterPart({ id, panel }, how, run, live, mayChange) {
  const state = el("b", { class: "state", data: { shutter: id } });
  const armed = how.arms ? el("b", { class: "state", data: { armed: id } }) : false;
  const when = el("small", {});
  let asked = null;
  let latched = false;
  const ask = async () => {
    const value = how.ask && mayChange ? await run("is open", how.ask, true) : null;
    if (typeof value === "boolean" || value === 0 || value === 1) asked = { value, t_ms: labTime(), from: "asked for", get stale() { return isOld(id, "is_open", this.t_ms); } };
  };
  const then = (what, body) => async () => { await run(what, body); ask(); };
  const known = () => SAYS.map((name) => reading(id, name)).filter(Boolean).concat(asked ?? []).sort((a, b) => b.t_ms - a.t_ms)[0];
  live.push(() => {
    const at = known();
    show(state, at, ["open", "closed"], "warn");
    put(when, at ? `${at.from} ${ago(labTime() - at.t_ms)}` : "nothing reads it back");
    if (armed) show(armed, reading(id, "armed"), ["armed", "not armed"], "bad");
    if (present().latched !== latched) ask();
    latched = present().latched;
  });
  const opens = how.open && el("button", { onclick: then("open", how.open) }, "Open");
  const arms = how.arms && panel.arming && el("button", { class: "danger", onclick: () => run("arm", { kind: "execute", name: "arm" }) }, "Arm");
  live.push(() => held([opens, arms].filter(Boolean), mayChange));
  ask();
  return [el("h3", {}, how.open ? "Shutter" : "Arming"), how.open ? el("div", { class: "row" }, state, armed, when) : armed, note(live), el("div", { class: "row", style: "margin-top:8px" },
    opens || false, how.close ? el("button", { class: "main", onclick: then("close", how.close) }, "Close") : false,
    how.ask ? el("button", { onclick: ask, title: "Ask the shutter itself" }, "Ask") : false,
    arms || false,
    how.arms ? el("button", { onclick: () => run("disarm", { kind: "execute", name: "disarm" }) }, "Disarm") : false),
  how.arms && !panel.arming ? el("p", { class: "soft" }, "It is armed at the lab itself, not from here: the lab file does not allow it.") : ""];
}

function show(box, at, [yes, no], alarming) {
  const known = at && !at.stale;
  put(box, !at ? "not known" : at.stale ? `was ${at.value ? yes : no}; not known now` : at.value ? yes : no);
  box.className = `state ${known ? (at.value ? alarming : "good") : ""}`;
}
