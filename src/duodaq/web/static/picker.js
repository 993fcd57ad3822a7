// Which channels are shown: all of them as buttons, or of many those that are shown and the rest behind a search.
import { el } from "./format.js";

const MANY = 14;
const MOST_FOUND = 60;
let box, chosenBox, more, search, rest, changed, last = null;

export function build(onChange) {
  changed = onChange;
  chosenBox = el("div", { class: "picker", role: "group", "aria-label": "Channels shown" });
  search = el("input", { type: "search", placeholder: "name or unit", "aria-label": "Find channels", oninput: () => found() });
  rest = el("div", { class: "picker many" });
  more = el("details", { class: "more", hidden: true }, el("summary", {}, "Choose channels"), search, rest);
  box = el("div", {}, chosenBox, more);
  return box;
}

/** Show what there is and what is chosen of it; `colourOf` names the colour of a chosen one. */
export function show(channels, chosen, colourOf) {
  last = { channels, chosen, colourOf };
  const many = channels.length > MANY;
  more.hidden = !many;
  chosenBox.replaceChildren(...channels.filter((c) => !many || chosen.includes(c.name)).map(chip));
  found();
}

function found() {
  if (more.hidden) return;
  const words = search.value.toLowerCase();
  const others = last.channels.filter((c) => !last.chosen.includes(c.name) && (!words || `${c.name} ${c.unit}`.toLowerCase().includes(words)));
  const left = others.length - MOST_FOUND;
  rest.replaceChildren(...others.slice(0, MOST_FOUND).map(chip), left > 0 ? el("small", {}, `and ${left} more: search for them`) : "", others.length ? "" : el("small", {}, "no such channel"));
}

function chip({ name, unit }) {
  const on = last.chosen.includes(name);
  return el("button", {
    class: on ? "on" : "", style: on ? `--mark: var(${last.colourOf(name)})` : "", "aria-pressed": String(on), title: `${name}${unit ? `, ${unit}` : ""}`, data: { stream: name },
    onclick: () => changed(on ? last.chosen.filter((n) => n !== name) : [...last.chosen, name]),
  }, on ? el("i", {}) : false, el("span", {}, name));
}
