// Curves as numbers: what came in is kept for some minutes, and what is shown is thinned to the width of the plot, of each
// stretch the least and the greatest value, so that a kilohertz and a hertz stand in one picture at the same cost.
import { quantity } from "./format.js";
import { isGap } from "./silence.js";

const KEPT = 1 << 17;
const MOST = 24;
const curves = new Map();

class Curve {
  constructor(unit) {
    this.t = new Float64Array(KEPT);
    this.v = new Float64Array(KEPT);
    this.unit = unit;
    this.end = 0;
  }

  /** What the lab still knows of it takes the place of what was here from then on. */
  past(times, values) {
    if (times.length) this.end = this.first(times[0] / 1000);
    this.add(times, values);
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

  get span_s() {
    return this.end ? this.t[this.end - 1] - this.t[0] : 0;
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

export const curveOf = (name) => curves.get(name);

/** Rows of a stream; with `past` they are its last ones before this browser asked for it. A new unit begins anew. */
export function take(stream, unit, times, values, past) {
  let curve = curves.get(stream);
  if (curve?.unit !== unit) curves.set(stream, (curve = new Curve(unit)));
  if (past) curve.past(times, values);
  else curve.add(times, values);
}

/** Forget curves that are not shown, beyond some. */
export function forget(shown) {
  for (const name of curves.keys()) if (curves.size > MOST && !shown.includes(name)) curves.delete(name);
}

export function range(names, from, to) {
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

/** Whether a point of one of them lies within that time. */
export function isSeen(names, from, to) {
  return names.some((name) => {
    const curve = curves.get(name);
    const i = curve?.first(from);
    return curve && i < curve.end && curve.t[i] <= to;
  });
}

/** Columns for a plot: `undefined` is where no point falls, and a line goes on; `null` is where nothing is known. */
export function gathered(names, from, to, width) {
  const buckets = Math.max(50, Math.min(1200, width - 80));
  const step = (to - from) / buckets;
  const start = Math.floor(from / step) * step;
  const length = (buckets + 1) * 2;
  const x = new Float64Array(length);
  for (let i = 0; i < length; i += 1) x[i] = start + (i >> 1) * step + (i & 1 ? step / 2 : 0);
  const columns = [x];
  for (const name of names) {
    const column = new Array(length).fill(undefined);
    columns.push(column);
    const curve = curves.get(name);
    if (!curve) continue;
    let i = Math.max(0, curve.first(start) - 1);
    let last = -1;
    let alone = false;
    if (i < curve.end && curve.t[i] < start) column[(last = 0)] = curve.v[i++];
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
      const broken = i > 0 && isGap(curve.t, i, curve.end);
      if (broken && last >= 0) {
        if (alone && last + 1 < place) column[last + 1] = column[last++];
        column.fill(null, last + 1, place);
      }
      alone = (broken || last < 0) && other === one;
      column[place] = curve.v[one];
      if (other !== one) column[place + 1] = curve.v[other];
      last = other === one ? place : place + 1;
      i = j;
    }
    if (alone && last + 1 < length) column[last + 1] = column[last];
  }
  return columns;
}

/** Ticks with one prefix, and as many digits as their step needs. */
export function labels(ticks, unit) {
  const most = greatest(ticks);
  const [sample, shown] = quantity(most || 1, unit);
  const scale = most && Number(sample) ? Math.abs(most / Number(sample)) : 1;
  const rounded = 10 ** (3 * Math.round(Math.log10(scale) / 3));
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) / rounded : 1;
  let digits = 0;
  while (digits < 9 && ticks.some((v) => Math.abs(v / rounded - Number((v / rounded).toFixed(digits))) > step / 50)) digits += 1;
  return ticks.map((v) => `${(v / rounded).toFixed(digits)}\u202f${shown}`);
}

const greatest = (ticks) => Math.max(...ticks.map(Math.abs), 0);

/** The unit that stands behind them. */
export const unitAt = (ticks, unit) => quantity(greatest(ticks) || 1, unit)[1];
