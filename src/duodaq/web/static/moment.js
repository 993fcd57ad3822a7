// What the lab says at this moment, in one place, so that no two views show two values of one thing.
const SAME_MS = 1000;
let now = null, table = new Map(), told_ms = 0, heard = 0;

/** Take what came; `t_ms` is the lab's own clock, which a browser elsewhere may not share. */
export function hear(moment, t_ms) {
  now = moment;
  told_ms = t_ms;
  heard = performance.now();
  table = new Map(moment.parameters.map((entry) => [`${entry.instrument}.${entry.name}`, entry]));
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

/** What is known of a channel or setting: what it sends, or if that is older what was asked: { value, unit, t_ms, stale, from }. */
export function reading(instrument, name) {
  const at = entry(instrument, name);
  const row = now?.values[`${instrument}.${name}`];
  if (row && (!at || row[0] >= at.t_ns / 1e6 - SAME_MS)) return { value: row[1], unit: row[2], t_ms: row[0], stale: false, from: "measured" };
  return at && { value: at.value, unit: at.unit, t_ms: at.t_ns / 1e6, stale: at.stale, from: "asked for" };
}
