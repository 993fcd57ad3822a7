// The newest vector or spectrum of a channel over its own axis, by credit as pictures come: what cannot be drawn is skipped.
import { ago, count, el, put, saidOf } from "./format.js";
import { labels, unitAt } from "./curves.js";
import * as link from "./link.js";
import { labTime } from "./moment.js";

export const figures = { drawn: 0 };
let box, chart, which, hold, facts, words, plot = null, shape = "", last = null, held = false, zoomed = false, chosen = null, channels = [];

export function build(container) {
  box = container;
  which = el("select", { "aria-label": "Vector or spectrum", onchange: () => choose(which.value) });
  hold = el("button", { "aria-pressed": "false", onclick: () => { held = !held; hold.setAttribute("aria-pressed", String(held)); put(hold, held ? "Go on" : "Hold"); } }, "Hold");
  facts = el("small", {});
  words = el("div", { class: "waiting" });
  chart = el("div", { class: "plot", role: "img" }, words);
  box.replaceChildren(el("div", { class: "head" }, el("h2", {}, "Spectra"), which, hold), el("div", { class: "axes" }, facts), chart);
  new ResizeObserver(() => plot?.setSize(size())).observe(chart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  link.on("trace", take);
  setInterval(tell, 500);
}

export function restyle() {
  shape = "";
  if (last) draw();
}

export function offer(list) {
  channels = list.filter((c) => c.kind === "vector" || c.kind === "spectrum").map((c) => ({ ...c, name: `${c.instrument}.${c.channel}` }));
  const names = channels.map((c) => c.name);
  box.hidden = !names.length;
  put(box.querySelector("h2"), channels.every((c) => c.kind === "vector") ? "Vectors" : channels.some((c) => c.kind === "vector") ? "Spectra and vectors" : "Spectra");
  if ([...which.options].map((o) => o.value).join() === names.join()) return;
  which.replaceChildren(...names.map((name) => el("option", { value: name, selected: name === chosen }, name)));
  if (!names.includes(chosen)) choose(names[0] ?? null);
}

function choose(name) {
  chosen = name;
  last = null;
  zoomed = false;
  plot?.destroy();
  plot = null;
  link.watchTraces(name ? [name] : []);
  tell();
}

function take(stream, read, facts_, credit) {
  if (stream !== chosen || held || document.hidden) return credit();
  const trace = { unit: facts_.get("unit"), axis_unit: facts_.get("axis_unit"), t_ms: Number(facts_.get("t_ms")), points: Number(facts_.get("points")), ...rising(read.getChild("axis").toArray(), read.getChild("value").toArray()) };
  requestAnimationFrame(() => {
    last = trace;
    if (!box.closest("[hidden]")) draw();
    credit();
  });
}

/** A plot's axis rises: one that falls is turned around, one that does neither is sorted. */
function rising(axis, values) {
  const falls = axis.length > 1 && axis[0] > axis.at(-1);
  const x = falls ? axis.slice().reverse() : axis;
  const y = falls ? values.slice().reverse() : values;
  if (x.every((v, i) => i === 0 || v >= x[i - 1])) return { x, y };
  const order = [...x.keys()].sort((a, b) => x[a] - x[b]);
  return { x: order.map((i) => x[i]), y: order.map((i) => y[i]) };
}

function draw() {
  const wanted = JSON.stringify([chosen, last.unit, last.axis_unit]);
  if (wanted !== shape || !plot) make(wanted);
  plot.setData([last.x, last.y], !zoomed);
  figures.drawn += 1;
}

function tell() {
  if (box.hidden || box.closest("[hidden]")) return;
  words.hidden = Boolean(last);
  if (!last) {
    put(words, chosen ? `Waiting for the first of ${chosen} …` : "");
    put(facts, "");
    return;
  }
  const at = plot?.cursor.idx;
  const under = at !== null && at !== undefined ? `${saidOf("", last.y[at], last.unit)} at ${last.axis_unit ? saidOf("", last.x[at], last.axis_unit) : `place ${last.x[at]}`} · ` : "";
  put(facts, `${under}${count(last.points)} points${last.points > last.x.length ? `, thinned to ${count(last.x.length)}` : ""} · ${ago(labTime() - last.t_ms)}`);
}

function size() {
  return { width: Math.max(200, chart.clientWidth), height: Math.max(180, Math.min(300, Math.round(innerHeight * 0.3))) };
}

function make(wanted) {
  shape = wanted;
  plot?.destroy();
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const line = { stroke: colour("--line"), width: 1 };
  const axis = { grid: line, ticks: line, font: "11px system-ui", labelFont: "11px system-ui", labelSize: 18, labelGap: 2 };
  let told = last.unit; // the unit at the ticks
  chart.setAttribute("aria-label", `${chosen} in ${last.unit || "no unit"} over ${last.axis_unit || "its places"}`);
  plot = new uPlot({
    ...size(), padding: [10, 26, 0, 0], legend: { show: false }, cursor: { drag: { x: true, y: false, dist: 6 } }, hooks: { setSelect: [(u) => { zoomed ||= u.select.width > 6; }] },
    scales: { x: { time: false }, y: {} },
    axes: [
      { ...axis, stroke: colour("--soft"), space: 60, size: 28, label: last.axis_unit ? `axis, ${last.axis_unit}` : "place in the vector", values: (_, ticks) => labels(ticks, last.axis_unit) },
      { ...axis, stroke: colour("--c0"), label: () => `${chosen}, ${told || "no unit"}`, values: (_, ticks) => { told = unitAt(ticks, last.unit); return labels(ticks, last.unit); }, size: (_, said) => Math.max(52, 26 + 6.2 * Math.max(0, ...(said ?? []).map((text) => text?.length ?? 0))) },
    ],
    series: [{}, { label: chosen, stroke: colour("--c0"), width: 1.6, points: { show: false } }],
  }, [last.x, last.y], chart);
  zoomed = false;
  plot.over.addEventListener("dblclick", () => { zoomed = false; });
  plot.over.title = "Drag to zoom, double-click for all of it";
}
