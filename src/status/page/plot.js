// Plots in SVG, of points that are five seconds each. Nothing here is ever markup: elements are made one by one.

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes, text) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// A bound of a scale that is pleasant to read: 1, 2 or 5 times a power of ten.
function pleasant(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((bound) => bound >= value * 0.999);
}

// The pieces of a curve without its gaps, each a list of [x, y].
function pieces(points, x, y) {
  const found = [];
  let piece = null;
  points.forEach((value, index) => {
    if (value === null) {
      piece = null;
    } else {
      if (piece === null) found.push((piece = []));
      piece.push([x(index), y(value)]);
    }
  });
  return found;
}

const path = (piece) => piece.map(([x, y], n) => (n ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1)).join("");

// Draws `curves` ({points, name}), whose last points are of the time `end`, over `steps` steps into `figure`. `faults` are {at, name}.
export function draw(figure, { title, now, unit, curves, step, steps, end, faults }) {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const width = Math.max(10 * rem, figure.clientWidth - 2 * rem - 2);
  const height = 7 * rem;
  const [left, right, top, bottom] = [0, width, 0.9 * rem, height - 1.1 * rem];
  const highest = Math.max(...curves.flatMap((curve) => curve.points.map((value) => value ?? 0)), 0);
  const bound = pleasant(highest);
  const span = (step * steps) / 60;
  const y = (value) => bottom - (value / bound) * (bottom - top);
  const at = (time) => right - ((end - time) / (step * (steps - 1))) * (right - left);

  const image = svg("svg", { class: "plot", viewBox: `0 0 ${width} ${height}`, role: "img" });
  const marked = faults.filter((fault) => at(fault.at) >= left);
  const told = curves.length === 1 ? `now ${now}, at most ${unit(highest)}` : `${curves.length} members, at most ${unit(highest)}`;
  image.append(svg("title", {}, `${title} in the last ${span} minutes: ${told}` + (marked.length ? `; faults marked: ${marked.length}` : "")));
  for (const value of [bound, bound / 2, 0]) {
    image.append(svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }));
  }
  image.append(svg("text", { x: left, y: y(bound) - 4 }, unit(bound)));
  const ticks = width < 20 * rem || span % 4 ? [1, 0] : [1, 0.75, 0.5, 0.25, 0];
  for (const share of ticks) {
    const place = share === 1 ? "start" : share === 0 ? "end" : "middle";
    const x = right - share * (right - left);
    image.append(svg("text", { x, y: height - 0.2 * rem, "text-anchor": place }, share ? `−${share * span} min` : "now"));
  }
  curves.forEach((curve, number) => {
    const first = steps - curve.points.length;
    const x = (index) => left + ((first + index) / (steps - 1)) * (right - left);
    for (const piece of pieces(curve.points, x, y)) {
      if (curves.length === 1 && piece.length > 1) {
        const area = `${path(piece)}L${piece.at(-1)[0].toFixed(1)} ${bottom}L${piece[0][0].toFixed(1)} ${bottom}Z`;
        image.append(svg("path", { class: "area", d: area }));
      }
      // A point alone is a short line.
      if (piece.length === 1) piece.push([piece[0][0] + 1, piece[0][1]]);
      image.append(svg("path", { class: `curve c${number % 8}`, d: path(piece) }));
    }
  });
  for (const fault of marked) {
    const x = Math.min(at(fault.at), right - 1);
    const wide = 0.25 * rem;
    const mark = svg("g", {});
    mark.append(svg("title", {}, fault.name));
    mark.append(svg("line", { class: "fault", x1: x, x2: x, y1: top, y2: bottom }));
    mark.append(svg("path", { class: "flag", d: `M${x - wide} ${top - 2 * wide}h${2 * wide}l${-wide} ${2 * wide}z` }));
    image.append(mark);
  }
  const caption = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = title;
  const value = document.createElement("strong");
  value.textContent = now;
  caption.append(name, value);
  figure.replaceChildren(caption, image);
  if (curves.length > 1) {
    const legend = document.createElement("ul");
    legend.className = "legend";
    curves.slice(0, 8).forEach((curve, number) => {
      const entry = document.createElement("li");
      const colour = document.createElement("span");
      colour.className = `c${number}`;
      entry.append(colour, curve.name);
      legend.append(entry);
    });
    if (curves.length > 8) {
      const entry = document.createElement("li");
      entry.textContent = `and ${curves.length - 8} more; the slowest are named`;
      legend.append(entry);
    }
    figure.append(legend);
  }
}
