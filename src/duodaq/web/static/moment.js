// What the lab says at this moment, in one place, so that no two views show two values of one thing.
import { curveOf } from "./curves.js";
import { isLong, isRecent } from "./silence.js";

const SAME_MS = 1000;
const OLD_MS = 15000;
const REMEMBERED = 9;
const LIVE = new Set(["ready", "acquiring", "shutting down"]);
const seen = new Map();
let now = null, table = new Map(), told_ms = 0, heard = 0;

/** Take what came; `t_ms` is the lab's own clock, which a browser elsewhere may not share. */
export function hear(moment, t_ms) {
  now = moment;
  told_ms = t_ms;
  heard = performance.now();
  table = new Map(moment.parameters.map((entry) => [`${entry.instrument}.${entry.name}`, entry]));
  for (const [stream, [row_ms]] of Object.entries(moment.values)) {
    const times = seen.get(stream) ?? [];
    if (times.at(-1) !== row_ms / 1000) seen.set(stream, [...times, row_ms / 1000].slice(-REMEMBERED));
  }
}

export const present = () => now;
export const entry = (instrument, name) => table.get(`${instrument}.${name}`);

/** Of each channel and setting the same as `reading`: [instrument, name, reading], channels first. */
export function* readings() {
  for (const stream of Object.keys(now.values)) {
    const id = stream.slice(0, stream.indexOf("."));
    const name = stream.slice(id.length + 1);
    yield [id, name, reading(id, name)];
  }
  for (const { instrument, name } of table.values()) if (!now.values[`${instrument}.${name}`]) yield [instrument, name, reading(instrument, name)];
}

export const labTime = () => told_ms + (performance.now() - heard);

/** Whether a channel or setting is not kept up to date: its instrument is not well, or it is silent for longer than is usual. */
export function isOld(instrument, name, t_ms) {
  const stream = `${instrument}.${name}`;
  const state = now.instruments[instrument]?.state;
  const age_ms = labTime() - t_ms;
  if (!LIVE.has(state)) return !isRecent(age_ms);
  if (!now.values[stream]) return false;
  const times = seen.get(stream) ?? [];
  const curve = curveOf(stream);
  const long = isLong(age_ms / 1000, times, times.length) ?? (curve ? isLong(age_ms / 1000, curve.t, curve.end) : null);
  return state === "acquiring" ? long === true : age_ms > OLD_MS && long !== false;
}

/** What is known of a channel or setting: what it sends, or if that is older what was asked: { value, unit, t_ms, stale, from }. */
export function reading(instrument, name) {
  const at = entry(instrument, name);
  const row = now?.values[`${instrument}.${name}`];
  if (row && (!at || row[0] >= at.t_ns / 1e6 - SAME_MS)) return { value: row[1], unit: row[2], t_ms: row[0], stale: isOld(instrument, name, row[0]), from: "measured" };
  const t_ms = at && at.t_ns / 1e6;
  return at && { value: at.value, unit: at.unit, t_ms, stale: at.stale || isOld(instrument, name, t_ms), from: "asked for" };
}
