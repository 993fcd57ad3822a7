// Who has control of an instrument, and how somebody at this page takes it, takes it over and lets it go.
import { askName } from "./asking.js";
import { clock, el, put } from "./format.js";
import { act } from "./link.js";
import { present } from "./moment.js";
import { toast } from "./toasts.js";

const mine = new Map();

/** Its part of a panel. */
export function controlPart(id, live, mayChange) {
  const who = el("b", { data: { holder: id } });
  const since = el("small", {});
  const take = el("button", { onclick: () => ask(id, "Take control", false) }, "Take control");
  const over = el("button", { class: "danger", onclick: () => ask(id, "Take over", true) }, "Take over …");
  const leave = el("button", { onclick: () => letGo(id) }, "Let go");
  live.push(() => {
    const holder = present().control?.[id];
    const own = mine.has(id);
    put(who, !holder ? "nobody, so everybody may" : holder.what ? `${holder.what} of ${own ? "yours" : holder.client}` : own ? `you, as ${holder.name}` : holder.client);
    put(since, !holder ? "" : `since ${clock(holder.since_ns / 1e6)}${own ? "" : "; reading and stopping are free to all"}`);
    take.hidden = !mayChange || Boolean(holder) || own;
    over.hidden = !mayChange || !holder || (own && !holder.what);
    leave.hidden = !mayChange || !own;
  });
  return el("div", { class: "control", role: "group", "aria-label": `Control of ${id}` }, el("div", {}, el("span", { class: "soft" }, "Control "), who, " ", since), el("div", { class: "row" }, take, over, leave));
}

/** How it stands: five times a second. Says so if what somebody here had is taken from him. */
export function moved(control, t_ms) {
  for (const [id, since_ns] of mine) {
    const holder = control[id];
    if (holder?.what || holder?.since_ns === since_ns || t_ms * 1e6 <= since_ns) continue;
    mine.delete(id);
    toast(`You have no control of ${id} any more`, holder ? `${holder.client} has taken it over.` : "It is free for all.", "bad", { stays: true });
  }
}

/** The connection is gone, and with it all that somebody here had. */
export const forget = () => mine.clear();

async function ask(id, title, takeOver) {
  const holder = present().control?.[id];
  const words = !takeOver ? "From everybody else, what moves, emits or sets is refused until you let it go or this page is closed. They may read, and stop." : holder
    ? `${holder.what ? `${holder.what} of ` : ""}${holder.client} has had it since ${clock(holder.since_ns / 1e6)}, and is told.${holder.what ? " The scan ends at once; its points are kept." : " What is on its way goes on."}`
    : "Nobody has it any more.";
  askName({ title: `${title} of ${id}?`, words, button: title, danger: takeOver, about: { control: id } }, async (name) => {
    try {
      const { holder: now } = await act("control", id, { who: name, take_over: takeOver });
      mine.set(id, now.since_ns);
      toast(`You have control of ${id}`, "Until you let it go, or this page is closed.", "good");
    } catch (error) {
      toast(`${id}: control ${takeOver ? "not taken over" : "not taken"}`, error.message, "bad");
    }
  });
}

async function letGo(id) {
  const since_ns = mine.get(id);
  mine.delete(id);
  try {
    await act("release", id);
    toast(`${id} is free for all`, "", "good");
  } catch (error) {
    mine.set(id, since_ns);
    toast(`${id}: not let go`, error.message, "bad");
  }
}
