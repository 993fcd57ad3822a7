// The two small graphs beside a camera's picture: how bright its pixels are, and what lies along a line.
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function sheet(canvas) {
  const [width, height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  pen.lineWidth = 1.5 * devicePixelRatio;
  return [pen, width, height];
}

/** How many pixels have which brightness, logarithmically; where black and white are, and where it saturates. */
export function histogram(canvas, frame) {
  const [pen, width, height] = sheet(canvas);
  const values = Array.from(frame.histogram, (n) => Math.log1p(n));
  const high = Math.max(...values, 1e-9);
  pen.beginPath();
  pen.moveTo(0, height);
  values.forEach((v, i) => pen.lineTo((i / (values.length - 1)) * width, height - 4 - (v / high) * (height - 18 * devicePixelRatio)));
  pen.lineTo(width, height);
  pen.globalAlpha = 0.35;
  pen.fillStyle = colour("--accent");
  pen.fill();
  pen.globalAlpha = 1;
  const across = (counts) => Math.max(1, Math.min(width - 1, ((counts - frame.darkest) / (frame.brightest - frame.darkest + 1)) * width));
  pen.strokeStyle = colour("--accent");
  for (const edge of [frame.low, frame.high]) pen.strokeRect(across(edge), 0, 0.5, height);
  if (frame.brightest >= frame.full) {
    pen.strokeStyle = colour("--bad");
    pen.strokeRect(across(frame.full), 0, 0.5, height);
  }
  label(pen, frame.darkest.toFixed(0), 4, height - 5, "left");
  label(pen, frame.brightest.toFixed(0), width - 4, height - 5, "right");
  label(pen, "pixels over counts", width / 2, 11 * devicePixelRatio, "center");
}

/** The counts from the line's first point to its last; `length` is its length in pixels. */
export function profile(canvas, values, length) {
  const [pen, width, height] = sheet(canvas);
  if (values.length < 2) return;
  const low = Math.min(...values);
  const high = Math.max(...values, low + 1e-9);
  const room = 14 * devicePixelRatio;
  pen.beginPath();
  values.forEach((v, i) => pen.lineTo((i / (values.length - 1)) * width, height - room - ((v - low) / (high - low)) * (height - 2 * room)));
  pen.strokeStyle = colour("--c1");
  pen.stroke();
  label(pen, `${high.toFixed(0)} counts`, 4, 11 * devicePixelRatio, "left");
  label(pen, low.toFixed(0), 4, height - 4, "left");
  label(pen, `${length.toFixed(0)} px`, width - 4, height - 4, "right");
}

function label(pen, text, x, y, align) {
  pen.fillStyle = colour("--ink");
  pen.font = `${10 * devicePixelRatio}px system-ui`;
  pen.textAlign = align;
  pen.fillText(text, x, y);
}
