// Live plots: each curve has its name, its colour and its unit on an axis; of more than two units the next two have a plot
// of their own below.
import { clock, el, isTwofold, put, saidOf } from "./format.js";
import { curveOf, forget, gathered, isSeen, labels, range, take, unitAt } from "./curves.js";
import * as link from "./link.js";
import { labTime, present, reading } from "./moment.js";
import * as picker from "./picker.js";

const WINDOWS = [[10, "10 s"], [30, "30 s"], [60, "1 min"], [300, "5 min"], [1800, "30 min"]];
const COLOURS = 6;
const AXES = 2;
const STEP_MS = 250; // how often time goes on where no row comes

const view = { chosen: [], window_s: 30, paused: false, from: null, to: null };
const slots = new Map();
export const figures = { updates: 0, past_s: 0 };
let box, chart, parts = [], needed = 1, channels = [], dirty = false, owes = false, last_ms = 0, told_ms = 0, shape = "";

export function build(container) {
  box = container;
  const windows = el("select", { "aria-label": "Time shown", onchange: (e) => { view.window_s = Number(e.target.value); live(); } },
    WINDOWS.map(([s, name]) => el("option", { value: String(s), selected: s === view.window_s }, name)));
  const pause = el("button", { id: "pause", onclick: () => (view.paused ? live() : freeze()) }, "Pause");
  chart = el("div", { class: "charts" });
  box.replaceChildren(el("div", { class: "head" }, el("h2", {}, "Channels"), windows, pause), picker.build(choose), chart);
  new ResizeObserver(() => { parts.forEach(({ plot }) => plot.setSize(size())); dirty = true; }).observe(chart);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
  link.on("rows", (...rows) => { take(...rows); dirty = true; });
  requestAnimationFrame(draw);
}

export function restyle() {
  shape = "";
  dirty = true;
}

export function offer(list) {
  const found = list.filter((c) => c.kind === "scalar").map((c) => ({ name: `${c.instrument}.${c.channel}`, unit: c.unit, instrument: c.instrument }));
  if (JSON.stringify(found) === JSON.stringify(channels)) return;
  channels = found;
  const kept = [...view.chosen, ...remembered()].filter((name, i, all) => all.indexOf(name) === i && found.some((c) => c.name === name)).slice(0, COLOURS);
  choose(kept.length ? kept : usual(found));
}

/** What to show to somebody who has chosen nothing: of each instrument in turn what it measures, four in all. */
function usual(found) {
  const worth = found.filter((c) => !c.name.endsWith(".velocity") && !isTwofold(c.name));
  const turn = (c) => worth.filter((one) => one.instrument === c.instrument).indexOf(c);
  return [...worth].sort((a, b) => turn(a) - turn(b)).slice(0, 4).map((c) => c.name);
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(`duodaq-plots ${document.title}`)) ?? [];
  } catch {
    return [];
  }
}

function choose(names) {
  view.chosen = names.slice(-COLOURS);
  try {
    localStorage.setItem(`duodaq-plots ${document.title}`, JSON.stringify(view.chosen));
  } catch {
    // it is chosen for this visit alone
  }
  for (const name of slots.keys()) if (!view.chosen.includes(name)) slots.delete(name);
  for (const name of view.chosen) if (!slots.has(name)) slots.set(name, [...Array(COLOURS).keys()].find((slot) => ![...slots.values()].includes(slot)));
  picker.show(channels, view.chosen, colourOf);
  link.watchStreams(view.chosen);
  forget(view.chosen);
  dirty = true;
}

const colourOf = (name) => `--c${slots.get(name)}`;

function live() {
  Object.assign(view, { paused: false, from: null, to: null });
  put(document.getElementById("pause"), "Pause");
  dirty = true;
}

function freeze(from = null, to = null) {
  const now = shownNow();
  Object.assign(view, { paused: true, from: from ?? now - view.window_s, to: to ?? now });
  put(document.getElementById("pause"), "Go on");
  dirty = true;
}

function newest() {
  let latest = 0;
  for (const name of view.chosen) {
    const curve = curveOf(name);
    if (curve?.end) latest = Math.max(latest, curve.t[curve.end - 1]);
  }
  return latest;
}

/** Where the time axis ends: time goes on while the lab is there, though nothing comes. */
function shownNow() {
  const now = link.state.open && present() ? labTime() / 1000 : 0;
  return Math.max(now, newest()) || Date.now() / 1000;
}

const unitOf = (name) => curveOf(name)?.unit ?? channels.find((c) => c.name === name)?.unit ?? "";

function draw(now_ms) {
  requestAnimationFrame(draw);
  const goesOn = owes || (!view.paused && link.state.open);
  if (!(dirty || (goesOn && now_ms - last_ms > STEP_MS)) || now_ms - last_ms < 33 || document.hidden || box.closest("[hidden]")) return;
  dirty = false;
  last_ms = now_ms;
  const shown = view.chosen.filter((name) => channels.some((c) => c.name === name));
  if (!shown.length) {
    dissolve();
    chart.replaceChildren(el("div", { class: "empty" }, channels.length ? "Choose channels above to see them here." : "No instrument of this lab has a channel of numbers."));
    return;
  }
  const units = [...new Set(shown.map(unitOf))];
  const to = view.paused ? view.to : shownNow();
  const from = view.paused ? view.from : to - view.window_s;
  const wanted = JSON.stringify([shown, units, wide()]);
  if (wanted !== shape || !parts.length) arrange(shown, units, wanted);
  const legend = now_ms - told_ms > STEP_MS;
  owes = !legend;
  if (legend) told_ms = now_ms;
  for (const part of parts) {
    part.plot.setData(gathered(part.names, from, to, chart.clientWidth), false);
    part.plot.batch(() => {
      part.plot.setScale("x", { min: from, max: to });
      for (const unit of part.units) part.plot.setScale(`y${unit}`, range(part.names.filter((n) => unitOf(n) === unit), from, to));
    });
    if (legend) tell(part, from, to);
  }
  figures.updates += 1;
  figures.past_s = Math.max(...shown.map((name) => curveOf(name)?.span_s ?? 0));
}

/** What all of the page says of a channel now. */
function newestOf(name) {
  const { instrument } = channels.find((c) => c.name === name) ?? {};
  return instrument && present() ? reading(instrument, name.slice(instrument.length + 1)) : null;
}

/** The names with their values: under the pointer, or else the newest; and where there is nothing to draw, why. */
function tell({ plot, names, said: words, empty }, from, to) {
  const at = plot.cursor.left >= 0 ? plot.cursor.idxs : null;
  names.forEach((name, i) => {
    const curve = curveOf(name);
    const under = at && at[i + 1] !== null && at[i + 1] !== undefined ? plot.data[i + 1][at[i + 1]] : null;
    const known = under === null ? newestOf(name) : null;
    const value = under ?? known?.value ?? (curve?.end ? curve.v[curve.end - 1] : null);
    words[i].parentElement.classList.toggle("stale", Boolean(known?.stale));
    put(words[i], value === null ? "no value yet" : saidOf(name, value, unitOf(name)));
  });
  empty.hidden = isSeen(names, from, to);
  if (!empty.hidden) put(empty, nothing(names));
}

function nothing(names) {
  const them = names.length === 1 ? names[0] : "these channels";
  const last_s = Math.max(...names.map((name) => { const curve = curveOf(name); return curve?.end ? curve.t[curve.end - 1] : 0; }));
  return last_s ? `No value of ${them} in the time shown; the last one is of ${clock(1000 * last_s)}.` : `Waiting for the first value of ${them} …`;
}

const wide = () => chart.clientWidth > 560;

function size() {
  const whole = Math.max(200, Math.min(330, Math.round(innerHeight * 0.34)));
  return { width: Math.max(200, chart.clientWidth), height: needed > 1 ? Math.max(150, Math.round(whole * 0.66)) : whole };
}

function arrange(names, units, wanted) {
  dissolve();
  shape = wanted;
  needed = Math.ceil(units.length / AXES);
  for (let i = 0; i < units.length; i += AXES) {
    const mine = units.slice(i, i + AXES);
    const part = make(names.filter((name) => mine.includes(unitOf(name))), mine);
    parts.push(part);
    told_ms = 0;
  }
}

function dissolve() {
  for (const { plot } of parts) plot.destroy();
  parts = [];
  shape = "";
  chart.replaceChildren();
}

function make(names, units) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const line = { stroke: colour("--line"), width: 1 };
  const of = (unit) => names.filter((name) => unitOf(name) === unit);
  const least = wide() ? 72 : 56;
  const beside = needed > 1 && units.length === 1 ? least + (wide() ? 18 : 0) : 12;
  const axes = [{ stroke: colour("--soft"), grid: line, ticks: line, font: "11px system-ui", space: 70, size: 28,
    values: (_, ticks) => ticks.map((t) => new Date(t * 1000).toLocaleTimeString([], { hour12: false })) }];
  const told = new Map(); // the unit at the ticks of each axis
  const scales = { x: { time: true, auto: false } };
  units.forEach((unit, i) => {
    scales[`y${unit}`] = { auto: false };
    const only = of(unit).length === 1 ? of(unit)[0] : null;
    axes.push({ scale: `y${unit}`, side: i ? 1 : 3, stroke: colour(only ? colourOf(only) : "--soft"), grid: i ? { show: false } : line, ticks: line,
      label: wide() ? (u, axis) => `${only && only.length < 30 ? `${only}, ` : ""}${told.get(axis) || "no unit"}` : null, labelFont: "11px system-ui", labelSize: wide() ? 18 : 0, labelGap: 2,
      size: (_, words) => Math.max(least, 26 + 6.2 * Math.max(0, ...(words ?? []).map((text) => text?.length ?? 0))),
      font: "11px system-ui", values: (_, ticks, axis) => { told.set(axis, unitAt(ticks, unit)); return labels(ticks, unit); } });
  });
  const said = names.map(() => el("span", {}));
  const group = (unit) => el("div", { class: "group", data: { unit } }, of(unit).map((name) => el("span", { class: "curve", style: `--mark: var(${colourOf(name)})`, data: { curve: name } }, el("i", {}), el("b", {}, name), said[names.indexOf(name)])));
  const empty = el("div", { class: "waiting", hidden: true });
  const canvas = el("div", { class: "plot", role: "img", "aria-label": `Curves of ${names.map((name) => `${name} in ${unitOf(name) || "no unit"}`).join(", ")}` }, empty);
  chart.append(el("div", { class: "axes" }, units.map(group)), canvas);
  const plot = new uPlot({
    ...size(), scales, axes, padding: [8, units.length > 1 ? 0 : Math.max(beside, 28), 0, 0], legend: { show: false },
    cursor: { drag: { x: true, y: false, setScale: false, dist: 6 } },
    hooks: {
      setCursor: [() => { told_ms = 0; dirty = true; }],
      setSelect: [(u) => {
        if (u.select.width < 6) return;
        freeze(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      }],
    },
    series: [{}, ...names.map((name) => ({ label: name, scale: `y${unitOf(name)}`, stroke: colour(colourOf(name)), width: 1.8, spanGaps: false, points: { show: false } }))],
  }, [[0], ...names.map(() => [null])], canvas);
  plot.over.addEventListener("dblclick", live);
  plot.over.title = "Drag to zoom, double-click to go on live";
  return { plot, names, units, said, empty };
}
