// Scans: those under way, whoever began them, with what pauses and ends them; the last that ended; and a form to begin one.
import { clock, count, duration, el, named, neat, numberIn, put, unitSaid } from "./format.js";
import { act } from "./link.js";
import { labTime } from "./moment.js";
import { held } from "./stopping.js";
import { toast } from "./toasts.js";

const MOODS = { running: "busy", starting: "busy", ending: "warn", paused: "warn", complete: "good", failed: "bad", aborted: "warn" };
const cards = new Map();
let box, tab, list, form = null, begin = null, operator = false;

export function build(container, button) {
  box = container;
  tab = button;
}

/** A lab as it greets: its scans are counted from one again. */
export function greet(isOperator, instruments) {
  operator = isOperator;
  cards.clear();
  list = el("div", { class: "scans" });
  form = operator ? wish(instruments) : null;
  box.className = "view stack";
  box.replaceChildren(...[form, el("article", { class: "card" }, el("div", { class: "head" }, el("h2", {}, "Scans")), list)].filter(Boolean));
  empty();
}

/** All that the lab remembers, also those that ended before this page was opened. */
export async function show() {
  try {
    const answer = await fetch("/api/scans");
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.detail);
    found.forEach(update);
    empty();
  } catch (error) {
    toast("The scans cannot be listed", error.message, "bad", { of: "scans" });
  }
}

/** How they stand: five times a second. */
export function moved(scans) {
  scans.forEach(update);
  const going = scans.filter((one) => one.ended_ns === null).length;
  put(tab, going ? `Scans ${going}` : "Scans");
  tab.classList.toggle("going", going > 0);
  if (begin) held([begin], operator);
  if (scans.length) empty();
}

function empty() {
  const none = list.querySelector(".empty");
  if (cards.size) none?.remove();
  else if (!none) list.append(el("div", { class: "empty" }, "Nothing was scanned yet, since the lab runs."));
}

function update(one) {
  let parts = cards.get(one.number);
  if (!parts) cards.set(one.number, (parts = card(one)));
  const going = one.ended_ns === null;
  const part = one.planned ? one.done / one.planned : 0;
  parts.box.dataset.state = one.state;
  parts.box.style.order = String((going ? 0 : 1e6) - one.number);
  parts.dot.className = `dot ${MOODS[one.state] ?? ""}`;
  put(parts.state, one.state);
  put(parts.points, `${count(one.done)} of ${count(one.planned)} points`);
  parts.bar.firstChild.style.width = `${part * 100}%`;
  parts.bar.setAttribute("aria-valuenow", (part * 100).toFixed(0));
  put(parts.time, times(one, going));
  put(parts.why, going ? one.holds.join("; ") : one.why);
  parts.why.hidden = !parts.why.textContent;
  parts.run.hidden = !one.directory;
  put(parts.run, one.directory ? `recorded in ${one.directory.split("/").at(-1)}` : "");
  parts.row.hidden = !operator || !going;
  const paused = one.holds.some((hold) => hold.startsWith("paused by"));
  parts.pause.hidden = paused;
  parts.resume.hidden = !paused;
  for (const button of [parts.pause, parts.resume]) button.disabled = one.state === "ending";
}

function times(one, going) {
  const took_s = ((going ? labTime() : one.ended_ns / 1e6) - one.since_ns / 1e6) / 1000;
  const left = going && one.state === "running" && one.done ? `, about ${duration((took_s / one.done) * (one.planned - one.done))} to go` : "";
  return `${clock(one.since_ns / 1e6)} · ${duration(Math.max(0, took_s))}${left} · ${one.who}${one.detached ? "" : ", in a program of its own"}`;
}

function card(one) {
  const does = (what, name) => async (event) => {
    event.target.disabled = true;
    try {
      update(await act(name, String(one.number)));
    } catch (error) {
      toast(`Scan ${one.number} is not ${what}`, error.message, "bad");
    } finally {
      event.target.disabled = false;
    }
  };
  const parts = { dot: el("span", { class: "dot" }), state: el("span", {}), points: el("b", {}), time: el("small", {}), why: el("p", { class: "why" }), run: el("small", {}) };
  parts.bar = el("div", { class: "bar", role: "progressbar", "aria-label": `Progress of scan ${one.number}`, "aria-valuemin": "0", "aria-valuemax": "100" }, el("i", {}));
  parts.pause = el("button", { onclick: does("paused", "scan_pause") }, "Pause");
  parts.resume = el("button", { class: "main", onclick: does("resumed", "scan_resume") }, "Resume");
  parts.row = el("div", { class: "row" }, parts.pause, parts.resume, el("button", { class: "danger", onclick: does("aborted", "scan_abort") }, "Abort"));
  parts.box = el("section", { class: "scan", data: { scan: String(one.number) }, "aria-label": `Scan ${one.number}` },
    el("div", { class: "row" }, el("h2", {}, `Scan ${one.number}`), el("span", { class: "chip" }, parts.dot, parts.state), parts.points),
    el("div", {}, `${one.axes.join(", ")} · reads ${one.read.join(", ") || "nothing"}`), parts.bar, parts.why, parts.time, parts.run, parts.row);
  list.append(parts.box);
  return parts;
}

// ---- a scan is wished for ------------------------------------------------------------------------------------------

function wish(instruments) {
  const axes = instruments.flatMap((one) => one.panel.axes.map((axis) => ({ ...axis, name: `${one.id}.${axis.name}` })));
  if (!axes.length) return null;
  const number = (name, more) => el("input", { type: "text", autocomplete: "off", required: true, "aria-label": name, placeholder: name, inputmode: "decimal", oninput: ({ target }) =>
    target.setCustomValidity(Number.isFinite(numberIn(target.value)) ? "" : "This is no number."), ...more });
  const axis = el("select", { "aria-label": "Axis" }, axes.map((one) => el("option", { value: one.name }, one.name)));
  const [start, stop] = [number("from"), number("to")];
  const points = number("points", { type: "number", step: "1", min: "1", max: "100000", value: "11" });
  const settle = number("settle", { value: "0" });
  const sample = el("input", { "aria-label": "Sample", placeholder: "sample", maxLength: 2000 });
  const limits = el("small", {});
  const reads = instruments.filter((one) => one.panel.channels.length || one.runtime === "v4").map((one) => {
    const tick = el("input", { type: "checkbox", value: one.id, checked: one.panel.channels.length > 0 });
    return { tick, shown: el("label", { class: "tick" }, tick, named(one.id)) };
  });
  const about = () => {
    const { unit, limits: ends } = axes.find((one) => one.name === axis.value);
    put(limits, `${unitSaid(unit)}${ends ? `, within ${neat(ends[0], unit)} to ${neat(ends[1], unit)}` : ""}`);
  };
  axis.addEventListener("change", about);
  about();
  begin = el("button", { class: "main", type: "submit" }, "Begin the scan");
  const asked = el("form", { onsubmit: async (e) => {
    e.preventDefault();
    if (begin.dataset.asked) return;
    begin.dataset.asked = "1";
    put(begin, "It begins …");
    try {
      const body = { axes: [{ axis: axis.value, start: Number(start.value), stop: Number(stop.value), points: Number(points.value) }], read: reads.filter((r) => r.tick.checked).map((r) => r.tick.value), settle_s: Number(settle.value) };
      update(await act("scan_start", null, sample.value ? { ...body, sample: sample.value } : body));
      empty();
    } catch (error) {
      toast("No scan has begun", error.message, "bad", { of: "scans" });
    } finally {
      delete begin.dataset.asked;
      put(begin, "Begin the scan");
    }
  } },
  el("div", { class: "row" }, axis, start, el("span", {}, "to"), stop, limits), el("div", { class: "row" }, el("label", { class: "tick" }, points, "points"), el("label", { class: "tick" }, settle, "s to settle at each"), sample),
  el("fieldset", { class: "row" }, el("legend", { class: "soft" }, "reads"), reads.map((r) => r.shown)), el("div", { class: "row" }, begin));
  return el("article", { class: "card begin" }, el("details", {}, el("summary", {}, "Begin a scan"), asked));
}
