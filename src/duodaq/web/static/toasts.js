// Messages that come and go: a few at once, the same one counted instead of repeated, each to be sent away.
import { el, put } from "./format.js";

const MOST = 4;
const box = () => document.getElementById("toasts");

/** Say something. `text` may be several lines; with `stays` it is there until somebody sends it away; what is said `of` a
 * view goes with it. */
export function toast(title, text = "", kind = "", { stays = false, of = "" } = {}) {
  const lines = [text].flat().filter(Boolean);
  const key = JSON.stringify([title, lines, kind]);
  const same = [...box().children].find((one) => one.dataset.key === key);
  if (same) return again(same);
  const shown = el("div", { class: `toast ${kind}`, role: kind === "bad" ? "alert" : "status", data: { key, times: "1", of } },
    el("button", { class: "quiet icon away", "aria-label": `Send away: ${title}`, onclick: () => leave(shown) }, "✕"),
    el("b", {}, title, el("em", { hidden: true })), lines.map((line) => el("p", {}, line)));
  shown.life_ms = stays ? Infinity : kind === "bad" ? 12000 : 5000;
  for (const over of ["pointerenter", "focusin"]) shown.addEventListener(over, () => clearTimeout(shown.timer));
  for (const off of ["pointerleave", "focusout"]) shown.addEventListener(off, () => wind(shown));
  box().append(shown);
  wind(shown);
  while (count() > MOST) least().remove();
  offerAll();
  box().scrollTop = box().scrollHeight;
}

/** Send all of them away. */
export const clear = () => box().replaceChildren();

/** The view `name` is shown: what was said of another has been seen. */
export function viewed(name) {
  shownNow().filter((one) => one.dataset.of && one.dataset.of !== name).forEach((one) => one.remove());
  offerAll();
}

const shownNow = () => [...box().querySelectorAll(".toast")];
const count = () => shownNow().length;

/** The first to make room: what went well before what did not. */
const least = () => shownNow().find((one) => !one.classList.contains("bad") && one.life_ms !== Infinity) ?? shownNow()[0];

function again(shown) {
  shown.dataset.times = String(Number(shown.dataset.times) + 1);
  const times = shown.querySelector("em");
  times.hidden = false;
  put(times, `×\u202f${shown.dataset.times}`);
  box().append(shown);
  wind(shown);
  offerAll();
}

function wind(shown) {
  clearTimeout(shown.timer);
  if (shown.life_ms !== Infinity) shown.timer = setTimeout(() => leave(shown), shown.life_ms);
}

function leave(shown) {
  shown.remove();
  offerAll();
}

function offerAll() {
  box().querySelector(".all")?.remove();
  if (count() > 1) box().append(el("button", { class: "all", onclick: clear }, "Send all away"));
}
