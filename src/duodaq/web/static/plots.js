// Live curves: what came in is kept here for some minutes, and what is shown is thinned to the width of the plot, of each
// stretch the least and the greatest value, so that a kilohertz and a hertz stand in one picture at the same cost.
import { el, put, quantity, said } from "./format.js";
import * as link from "./link.js";

const KEPT = 1 << 17;
const WINDOWS = [[10, "10 s"], [30, "30 s"], [60, "1 min"], [300, "5 min"], [1800, "30 min"]];
const COLOURS = 6;
const curves = new Map();

class Curve {
  constructor(unit) {
    this.t = new Float64Array(KEPT);
    this.v = new Float64Array(KEPT);
    this.unit = unit;
    this.end = 0;
  }

  add(times, values) {
    if (this.end + times.length > KEPT) {
      const kept = KEPT >> 1;
      const from = Math.max(0, this.end - kept);
      this.t.copyWithin(0, from, this.end);
      this.v.copyWithin(0, from, this.end);
      this.end -= from;
    }
    const room = Math.min(times.length, KEPT - this.end);
    for (let i = 0; i < room; i += 1) {
      this.t[this.end + i] = times[i] / 1000;
      this.v[this.end + i] = values[i];
    }
    this.end += room;
  }

  first(t) {
    let low = 0;
    let high = this.end;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.t[middle] < t) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

const view = { chosen: [], window_s: 30, paused: false, from: null, to: null };
export const figures = { updates: 0 };
let box, picker, chart, plot, channels = [], dirty = false, last_ms = 0, told_ms = 0, shape = "";

export function build(container) {
  box = container;
  const windows = el("select", { "aria-label": "Time shown", onchange: (e) => { view.window_s = Number(e.target.value); live(); } },
    WINDOWS.map(([s, name]) => el("option", { value: String(s), selected: s === view.window_s }, name)));
  const pause = el("button", { id: "pause", onclick: () => (view.paused ? live() : freeze()) }, "Pause");
  picker = el("div", { class: "picker" });
  chart = el("div", { class: "plot" });
  box.replaceChildren(el("div", { class: "head" }, el("h2", {}, "Channels"), windows, pause), picker, chart);
  new ResizeObserver(() => plot?.setSize(size())).observe(chart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  link.on("rows", take);
  requestAnimationFrame(draw);
}

export function restyle() {
  shape = "";
  dirty = true;
}

export function offer(list) {
  const found = list.filter((c) => c.kind === "scalar").map((c) => ({ name: `${c.instrument}.${c.channel}`, unit: c.unit }));
  if (JSON.stringify(found) === JSON.stringify(channels)) return;
  channels = found;
  const kept = remembered().filter((name) => found.some((c) => c.name === name));
  view.chosen = kept.length ? kept : found.filter((c) => !c.name.endsWith(".velocity")).slice(0, 4).map((c) => c.name);
  choose(view.chosen);
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(`duodaq-plots ${document.title}`)) ?? [];
  } catch {
    return [];
  }
}

function choose(names) {
  view.chosen = names;
  try {
    localStorage.setItem(`duodaq-plots ${document.title}`, JSON.stringify(names));
  } catch {
    // it is chosen for this visit alone
  }
  picker.replaceChildren(...channels.map((channel) => {
    const place = names.indexOf(channel.name);
    return el("button", {
      class: place >= 0 ? "on" : "", style: place >= 0 ? `--mark: var(--c${place % COLOURS})` : "", data: { stream: channel.name },
      onclick: () => choose(place >= 0 ? names.filter((n) => n !== channel.name) : [...names, channel.name].slice(-COLOURS)),
    }, channel.name);
  }));
  link.watchStreams(names);
  dirty = true;
}

function take(stream, unit, times, values) {
  let curve = curves.get(stream);
  if (!curve) curves.set(stream, (curve = new Curve(unit)));
  curve.unit = unit;
  curve.add(times, values);
  dirty = true;
}

function live() {
  Object.assign(view, { paused: false, from: null, to: null });
  put(document.getElementById("pause"), "Pause");
  dirty = true;
}

function freeze(from = null, to = null) {
  const now = newest();
  Object.assign(view, { paused: true, from: from ?? now - view.window_s, to: to ?? now });
  put(document.getElementById("pause"), "Go on");
  dirty = true;
}

function newest() {
  let latest = 0;
  for (const name of view.chosen) {
    const curve = curves.get(name);
    if (curve?.end) latest = Math.max(latest, curve.t[curve.end - 1]);
  }
  return latest || Date.now() / 1000;
}

function draw(now_ms) {
  requestAnimationFrame(draw);
  if (!dirty || now_ms - last_ms < 33 || document.hidden || box.closest("[hidden]")) return;
  dirty = false;
  last_ms = now_ms;
  const shown = view.chosen.filter((name) => channels.some((c) => c.name === name));
  if (!shown.length) {
    plot?.destroy();
    plot = null;
    shape = "";
    chart.replaceChildren(el("div", { class: "empty" }, "Choose channels above to see them here."));
    return;
  }
  const units = [...new Set(shown.map(unitOf))];
  const wanted = JSON.stringify([shown, units]);
  if (wanted !== shape || !plot) make(shown, units, wanted);
  const to = view.paused ? view.to : newest();
  const from = view.paused ? view.from : to - view.window_s;
  plot.setData(gathered(shown, from, to), false);
  plot.batch(() => {
    plot.setScale("x", { min: from, max: to });
    for (const unit of units) plot.setScale(`y${unit}`, range(shown.filter((n) => unitOf(n) === unit), from, to));
  });
  if (plot.cursor.left < 0 && now_ms - told_ms > 400) {
    told_ms = now_ms;
    plot.setLegend({ idx: null }, false);
  }
  figures.updates += 1;
}

function latest(name) {
  const curve = curves.get(name);
  return curve?.end ? said(curve.v[curve.end - 1], curve.unit) : "–";
}

const unitOf = (name) => curves.get(name)?.unit ?? channels.find((c) => c.name === name)?.unit ?? "";

function range(names, from, to) {
  let low = Infinity;
  let high = -Infinity;
  for (const name of names) {
    const curve = curves.get(name);
    if (!curve) continue;
    for (let i = curve.first(from); i < curve.end && curve.t[i] <= to; i += 1) {
      const value = curve.v[i];
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return { min: 0, max: 1 };
  const margin = (high - low || Math.abs(high) * 0.02 || 1) * 0.07;
  return { min: low - margin, max: high + margin };
}

function gathered(names, from, to) {
  const buckets = Math.max(50, Math.min(1200, chart.clientWidth - 80));
  const step = (to - from) / buckets;
  const start = Math.floor(from / step) * step;
  const length = (buckets + 1) * 2;
  const x = new Float64Array(length);
  for (let i = 0; i < length; i += 1) x[i] = start + (i >> 1) * step + (i & 1 ? step / 2 : 0);
  const columns = [x];
  for (const name of names) {
    const column = new Array(length).fill(null);
    columns.push(column);
    const curve = curves.get(name);
    if (!curve) continue;
    let i = Math.max(0, curve.first(start) - 1);
    if (i < curve.end && curve.t[i] < start) column[0] = curve.v[i++];
    while (i < curve.end && curve.t[i] <= to) {
      const bucket = Math.floor((curve.t[i] - start) / step);
      const stop = start + (bucket + 1) * step;
      let least = i;
      let most = i;
      let j = i + 1;
      for (; j < curve.end && curve.t[j] < stop && curve.t[j] <= to; j += 1) {
        if (curve.v[j] < curve.v[least]) least = j;
        if (curve.v[j] > curve.v[most]) most = j;
      }
      const place = Math.max(0, Math.min(length - 2, bucket * 2));
      const [one, other] = least < most ? [least, most] : [most, least];
      column[place] = curve.v[one];
      if (other !== one) column[place + 1] = curve.v[other];
      i = j;
    }
  }
  return columns;
}

/** Ticks with one prefix, and as many digits as their step needs. */
function labels(ticks, unit) {
  const most = Math.max(...ticks.map(Math.abs), 0);
  const [sample, shown] = quantity(most || 1, unit);
  const scale = most && Number(sample) ? Math.abs(most / Number(sample)) : 1;
  const rounded = 10 ** (3 * Math.round(Math.log10(scale) / 3));
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) / rounded : 1;
  let digits = 0;
  while (digits < 9 && ticks.some((v) => Math.abs(v / rounded - Number((v / rounded).toFixed(digits))) > step / 50)) digits += 1;
  return ticks.map((v) => `${(v / rounded).toFixed(digits)}\u202f${shown}`);
}

function size() {
  return { width: Math.max(200, chart.clientWidth), height: Math.max(190, Math.min(330, Math.round(innerHeight * 0.34))) };
}

function make(names, units, wanted) {
  shape = wanted;
  plot?.destroy();
  chart.replaceChildren();
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const line = { stroke: colour("--line"), width: 1 };
  const axes = [{ stroke: colour("--soft"), grid: line, ticks: line, font: "11px system-ui", space: 70,
    values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString([], { hour12: false })) }];
  const scales = { x: { time: true, auto: false } };
  units.forEach((unit, i) => {
    scales[`y${unit}`] = { auto: false };
    if (i < 2) axes.push({ scale: `y${unit}`, side: i ? 1 : 3, stroke: colour("--soft"), grid: i ? { show: false } : line, ticks: line,
      size: (_, said) => Math.max(58, 22 + 6.4 * Math.max(0, ...(said ?? []).map((text) => text?.length ?? 0))),
      font: "11px system-ui", values: (_, ticks) => labels(ticks, unit) });
  });
  plot = new uPlot({
    ...size(), scales, axes, padding: [8, units.length > 1 ? 0 : 12, 0, 0],
    cursor: { drag: { x: true, y: false, setScale: false, dist: 6 } },
    hooks: { setSelect: [(u) => {
      if (u.select.width < 6) return;
      freeze(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
      u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    }] },
    series: [{ value: (_, t) => (t ? new Date(t * 1000).toLocaleTimeString([], { hour12: false }) : "last") }, ...names.map((name, i) => ({
      label: name, scale: `y${unitOf(name)}`, stroke: colour(`--c${i % COLOURS}`), width: 1.6, spanGaps: true, points: { show: false },
      value: (_, v) => (v === null || v === undefined ? latest(name) : said(v, unitOf(name))),
    }))],
  }, [[0], ...names.map(() => [null])], chart);
  plot.over.addEventListener("dblclick", live);
  plot.over.title = "Drag to zoom, double-click to go on live";
}
