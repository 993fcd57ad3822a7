// When a channel is silent, decided in one place: a second without a value is nothing where one comes once a minute.
const LEAST_S = 2;
const MUCH = 4;
const BESIDE = 8;
const KNOWN = 3;

/** Of the distances that end at places `from` to `to` of `t`, how many there are and how many of them are far below `span_s`. */
function below(span_s, t, from, to) {
  let small = 0;
  for (let i = from; i < to; i += 1) small += MUCH * (t[i] - t[i - 1]) < span_s;
  return [Math.max(0, to - from), small];
}

/** Whether `span_s` is much longer than is usual before place `end` of `t`, in s; null where too little is known. */
export function isLong(span_s, t, end) {
  const [known, small] = below(span_s, t, Math.max(1, end - BESIDE), end);
  return known < KNOWN ? null : span_s > LEAST_S && 2 * small > known;
}

/** Whether nothing is known of the time between places `i - 1` and `i`: it is long for what was before and for what came then. */
export function isGap(t, i, end) {
  const span_s = t[i] - t[i - 1];
  if (!(span_s > LEAST_S)) return false;
  const before = below(span_s, t, Math.max(1, i - BESIDE), i);
  const after = below(span_s, t, i + 1, Math.min(end, i + 1 + BESIDE));
  const sides = [before[0] > 0 && before, after[0] >= KNOWN && after].filter(Boolean);
  return sides.length > 0 && sides.every(([known, small]) => 2 * small > known);
}

export const isRecent = (age_ms) => age_ms <= 1000 * LEAST_S;
