// The one connection to the lab: what comes in goes to listeners, what is asked comes back as a promise, and when it is
// lost it is tried again until it is there. Rows and images are asked for by credit: one that cannot draw gets none.
const listeners = {};
const pending = new Map();
const wanted = { streams: [], traces: [], images: new Map() };
let socket = null;
let number = 0;
let wait_ms = 300;
let owed = 0;
let heard_ms = 0;
const SILENT_MS = 6000; // the lab says something every second

export const state = { open: false, since: Date.now(), rows: 0, images: 0, lostRows: 0, lostImages: 0 };

export function on(kind, listener) {
  (listeners[kind] ??= []).push(listener);
}

function emit(kind, ...what) {
  for (const listener of listeners[kind] ?? []) listener(...what);
}

export function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/api/live`);
  socket.binaryType = "arraybuffer";
  socket.onopen = opened;
  heard_ms = performance.now();
  socket.onmessage = (event) => { heard_ms = performance.now(); take(event); };
  socket.onclose = closed;
}

const take = (event) => (typeof event.data === "string" ? heard(JSON.parse(event.data)) : drawn(event.data));

/** A connection that says nothing is none, though no browser tells: a cable was pulled, or a machine sleeps. */
setInterval(() => {
  if (!socket || performance.now() - heard_ms < SILENT_MS) return;
  Object.assign(socket, { onopen: null, onmessage: null, onclose: null });
  socket.close();
  closed();
}, 1000);

function opened() {
  wait_ms = 300;
  owed = 0;
  Object.assign(state, { open: true, since: Date.now() });
  say({ type: "credit", rows: 32, images: 1 }); // a second picture on its way would only wait, and be older when it is drawn
  say({ type: "streams", names: wanted.streams });
  say({ type: "traces", names: wanted.traces });
  for (const view of wanted.images.values()) say({ type: "image", ...view });
  emit("open");
}

async function closed() {
  const was = state.open;
  socket = null;
  if (was) Object.assign(state, { open: false, since: Date.now() });
  for (const { reject } of pending.values()) reject(new Refused("The connection was lost before the answer came; whether it was done is not known."));
  pending.clear();
  emit("close", was);
  setTimeout(retry, wait_ms);
  wait_ms = Math.min(2500, wait_ms * 1.6);
}

async function retry() {
  if (document.hidden && wait_ms > 2000) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
  let session = null;
  try {
    const answer = await fetch("/api/session", { cache: "no-store" });
    session = answer.ok ? await answer.json() : null;
  } catch {
    session = null; // not there yet
  }
  if (session && session.role === "nobody") return emit("token", connect);
  if (session) return connect();
  setTimeout(retry, wait_ms);
  wait_ms = Math.min(2500, wait_ms * 1.6);
}

function say(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
}

function heard(message) {
  if (message.type === "done") {
    const asked = pending.get(message.id);
    pending.delete(message.id);
    if (!asked) return;
    if (message.ok) asked.resolve(message.result);
    else asked.reject(new Refused(message.detail, message.error, message.fate, message.status, message));
    return;
  }
  if (message.type === "lost") Object.assign(state, { lostRows: message.rows, lostImages: message.images });
  emit(message.type, message[message.type] ?? message, message);
}

/** A message is one stream of Arrow's after the other: the rows of several channels come together. */
function drawn(buffer) {
  for (const reader of Arrow.RecordBatchReader.readAll(new Uint8Array(buffer))) show(new Arrow.Table([...reader]));
}

function show(read) {
  const facts = read.schema.metadata;
  if (facts.get("kind") === "image") {
    state.images += 1;
    emit("image", facts.get("stream"), read, () => say({ type: "credit", images: 1 }));
    return;
  }
  if (facts.get("kind") === "trace") {
    emit("trace", facts.get("stream"), read, facts, () => say({ type: "credit", images: 1 }));
    return;
  }
  state.rows += 1;
  emit("rows", facts.get("stream"), facts.get("unit"), read.getChild("t_ms").toArray(), read.getChild("value").toArray(), facts.get("kind") === "past");
  owed += 1;
  if (owed >= 8) {
    say({ type: "credit", rows: owed });
    owed = 0;
  }
}

/** What the lab said no to, or could not be asked. */
export class Refused extends Error {
  constructor(detail, kind = "", fate = "", status = 0, { done, not_done } = {}) {
    super(detail);
    Object.assign(this, { done, not_done });
    this.status = status;
    this.kind = kind;
    this.fate = fate;
  }
}

/** Have the lab do something; the promise ends with its result, or with why it was refused. */
export function act(name, target = null, body = {}) {
  if (!state.open) return Promise.reject(new Refused("There is no connection to the lab. Nothing was sent."));
  const id = (number += 1);
  return new Promise((resolve, reject) => {
    pending.set(id, { resolve, reject });
    say({ type: "do", id, name, target, body });
  });
}

/** Stop everything: by the live connection and, if that does not answer at once, by a request of its own as well. */
export async function stopAll() {
  const asked = act("stop_all");
  const late = new Promise((done) => setTimeout(() => done("late"), 250));
  const first = await Promise.race([asked.catch(() => "late"), late]);
  if (first !== "late") return first;
  const request = fetch("/api/stop-all", { method: "POST" }).then(async (answer) => {
    const said = await answer.json();
    if (!answer.ok) throw new Refused(said.detail, said.error);
    return said;
  });
  return Promise.any([asked, request]).catch((all) => {
    throw all.errors.find((error) => error instanceof Refused && error.kind) ?? all.errors[0];
  });
}

export function watchStreams(names) {
  wanted.streams = names;
  say({ type: "streams", names });
}

export function watchTraces(names) {
  wanted.traces = names;
  say({ type: "traces", names });
}

export function watchImage(view) {
  wanted.images.set(view.stream, view);
  say({ type: "image", ...view });
}

export function leaveImage(stream) {
  if (wanted.images.delete(stream)) say({ type: "no image", stream });
}
