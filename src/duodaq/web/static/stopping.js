// STOP ALL: what it did, what is refused meanwhile, and the reset, which asks first.
import { close, isAsked } from "./asking.js";
import { clock, el, listed, put } from "./format.js";
import * as link from "./link.js";
import { present } from "./moment.js";
import { toast } from "./toasts.js";

const HELD = "Stopped: refused until the reset.";
const REFUSED = "Whatever moves or emits is refused until somebody resets it; reading, closing and stopping go on.";
const LOOK_ONLY = "Your token lets you look only.";
let banner, button, askName, operator = false, shown = "", last = null, asked = null;

export function build(parts) {
  ({ banner, button, askName } = parts);
  button.addEventListener("click", stopAll);
  addEventListener("keydown", (event) => {
    if (event.key !== "." || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (!button.disabled) stopAll();
  });
}

export function greet(isOperator) {
  operator = isOperator;
  button.disabled = !operator;
  button.title = operator ? "Stop everything that moves or emits, now (Ctrl and the full stop)" : LOOK_ONLY;
  shown = "";
}

async function stopAll() {
  const began = performance.now();
  try {
    const report = await link.stopAll();
    const bad = Object.keys(report.failures).length > 0;
    toast(`Stopped in ${(performance.now() - began).toFixed(0)} ms${bad ? ", but not everything" : ""}`, [...words(report), REFUSED], bad ? "bad" : "good", { stays: bad });
  } catch (error) {
    toast("NOT STOPPED", [error.message, "Use the switch at the instrument, or `duodaq stop-all` at the lab."], "bad", { stays: true });
  }
}

/** What a stop-all did, a sentence for each kind of instrument. */
function words(report) {
  if (!report.on_wire_ns) return ["What it did is not known yet; the lab's log says it."];
  const reached = Object.keys(report.on_wire_ns);
  const failed = Object.entries(report.failures).map(([name, why]) => `NOT stopped: ${name}: ${why}`);
  const bare = report.no_fail_safe;
  return [
    ...failed.slice(0, 8), failed.length > 8 ? `NOT stopped: ${failed.length - 8} more; the lab's log names them.` : "",
    reached.length ? `The stop is on the wire of ${listed(reached)}.` : "No port has a stop of its own; the drivers were told.",
    ...others(report),
    report.ended ? `${report.ended} waiting ${report.ended === 1 ? "command was" : "commands were"} ended, not done.` : "",
    bare.length ? `Without a fail-safe: ${listed(bare)}. Only ${bare.length === 1 ? "its driver" : "their drivers"} could stop ${bare.length === 1 ? "it" : "them"}: look there yourself.` : "",
  ].filter(Boolean);
}

/** What was done about instruments that got no stop by the wire, those of the same kind in one line. */
function others({ did = {} }) {
  const alike = new Map();
  for (const [name, what] of Object.entries(did)) {
    if (!/^(stop is on|NOT stopped)/.test(what)) alike.set(what, [...(alike.get(what) ?? []), name]);
  }
  return [...alike].map(([what, names]) => `${listed(names)}: ${what}.`);
}

/** How it stands: five times a second. */
export function moved({ latched, stopped }) {
  const what = JSON.stringify([latched, stopped, operator]);
  if (what === shown) return;
  shown = what;
  if (stopped?.number !== last?.number && asked && isAsked(asked)) {
    close();
    toast(latched ? "Another stop came" : "The stop was lifted already", latched ? "Look what it was for before you lift it." : "", "bad");
  }
  last = stopped;
  banner.hidden = !latched;
  if (!latched) return;
  const by = stopped?.who ? ` by ${stopped.who}` : "";
  banner.replaceChildren(
    el("div", { class: "line" }, el("b", {}, stopped ? `STOPPED at ${clock(stopped.t_ns / 1e6)}${by}.` : "STOPPED."), el("span", { class: "why" }, REFUSED), operator ? el("button", { id: "reset-stop", onclick: reset }, "Reset …") : false),
    stopped ? el("details", { open: innerWidth > 760 }, el("summary", {}, "What it did"), words(stopped).map((line) => el("p", {}, line))) : "");
}

function reset() {
  const bare = last?.no_fail_safe?.length ? ` ${listed(last.no_fail_safe)} had no fail-safe: is it quiet?` : "";
  const stop = last?.number ?? null;
  asked = askName({ title: "Lift the stop?", words: `Moves, homing, opening shutters and arming are accepted again, from everybody and from scans. Nothing goes on by itself: what was stopped stays as it is.${bare} Is everybody out of the beam?`, button: "Lift the stop", leave: "Leave it" }, (who) =>
    link.act("reset_stop", null, { who, stop }).then(() => toast("Reset", "Moves are accepted again; nothing goes on by itself.", "good"), (error) => toast("Not reset", error.message, "bad")));
}

/** A line for panels while the stop is in force. */
export function note(live) {
  const line = el("p", { class: "held", hidden: true }, HELD);
  live.push(() => { line.hidden = !present().latched; });
  return line;
}

/** Buttons for what is refused while the stop is in force cannot be pressed meanwhile, and say why. */
export function held(buttons, mayChange) {
  const why = !mayChange ? LOOK_ONLY : present()?.latched ? HELD : "";
  for (const one of buttons) {
    if (why !== (one.dataset.why ?? "")) {
      if (!one.dataset.why) one.dataset.usual = one.title;
      one.title = why || one.dataset.usual;
      one.dataset.why = why;
    }
    one.disabled = Boolean(why);
  }
}
