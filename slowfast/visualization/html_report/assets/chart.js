// Line charts with axes and the values below the pointer.

const CHART_HEIGHT = 230;
const MARGIN = { left: 56, right: 14, top: 10, bottom: 40 };

// chart: title, unit, x_title, series {name, x, y, style}, note, low, high.
function lineChart(chart) {
  const plot = element("div", { class: "plot" });
  const tip = tooltip(plot);
  const heading = chart.unit ? `${chart.title} (${chart.unit})` : chart.title;
  const hues = lineHues(chart.series);
  const legend = element("div", { class: "legend" }, ...chart.series.map((series, place) =>
    element("span", { class: series.style }, swatch(hues[place]), series.name)));
  drawToFit(plot, (width) => {
    const view = chartView(chart, width);
    const picture = chartPicture(chart, view, heading, hues);
    const cursor = shape("line", { class: "cursor", y1: MARGIN.top, y2: CHART_HEIGHT - MARGIN.bottom, x1: -9, x2: -9 });
    const dots = hues.map((hue) => shape("circle", { r: 3.5, class: `s${hue}`, cx: -9 }));
    picture.append(cursor, ...dots);
    picture.addEventListener("pointermove", (event) => point(chart, view, event, { cursor, dots, hues, tip }));
    picture.addEventListener("pointerleave", () => {
      tip.hide();
      [cursor, ...dots].forEach((mark) => mark.setAttribute("visibility", "hidden"));
    });
    plot.querySelector("svg")?.remove();
    plot.prepend(picture);
  });
  const note = chart.note ? element("p", { class: "note" }, chart.note) : null;
  return element("figure", { class: "chart" }, element("figcaption", {}, heading), plot, legend, note);
}

// A faint line has the color of the line after it, which smooths it.
function lineHues(series) {
  let hue = -1;
  return series.map((_, place) => {
    if (place === 0 || series[place - 1].style !== "faint") hue += 1;
    return hue % 6;
  });
}

function swatch(hue) {
  return element("i", { class: `swatch s${hue}` });
}

// The ranges of a chart and the functions from values to pixels.
function chartView(chart, width) {
  const xs = chart.series.flatMap((series) => series.x);
  const ys = chart.series.flatMap((series) => series.y.filter((value) => value !== null));
  let [left, right] = [Math.min(0, extreme(xs, Math.min)), extreme(xs, Math.max)];
  if (!(right > left)) [left, right] = [0, Math.max(right, 1)];
  let low = chart.low ?? extreme(ys, Math.min);
  let high = chart.high ?? extreme(ys, Math.max);
  if (!(high > low)) [low, high] = [Math.min(low, 0), Math.max(high, low + 1e-9, low * 1.1)];
  if (chart.low === null) low = low >= 0 && low < 0.5 * high ? 0 : low - 0.05 * (high - low);
  if (chart.high === null) high += 0.05 * (high - low);
  const inner = { width: width - MARGIN.left - MARGIN.right, height: CHART_HEIGHT - MARGIN.top - MARGIN.bottom };
  return {
    width, left, right, low, high,
    x: (value) => MARGIN.left + (inner.width * (value - left)) / (right - left),
    y: (value) => MARGIN.top + inner.height * (1 - (value - low) / (high - low)),
    valueAt: (pixel) => left + ((right - left) * (pixel - MARGIN.left)) / inner.width,
  };
}

function extreme(values, choose) {
  return values.length ? values.reduce((one, other) => choose(one, other)) : 0;
}

function chartPicture(chart, view, heading, hues) {
  const bottom = CHART_HEIGHT - MARGIN.bottom;
  const picture = shape("svg", { width: view.width, height: CHART_HEIGHT, role: "img", "aria-label": heading });
  for (const value of ticks(view.low, view.high, 5)) {
    const y = view.y(value);
    picture.append(
      shape("line", { class: "grid", x1: MARGIN.left, x2: view.width - MARGIN.right, y1: y, y2: y }),
      shape("text", { x: MARGIN.left - 6, y: y + 4, "text-anchor": "end" }, numberText(value)));
  }
  for (const value of ticks(view.left, view.right, Math.max(Math.floor(view.width / 90), 2))) {
    picture.append(
      shape("line", { class: "grid", x1: view.x(value), x2: view.x(value), y1: bottom, y2: bottom + 4 }),
      shape("text", { x: view.x(value), y: bottom + 17, "text-anchor": "middle" }, numberText(value)));
  }
  picture.append(
    shape("line", { class: "axis", x1: MARGIN.left, x2: view.width - MARGIN.right, y1: bottom, y2: bottom }),
    shape("text", { class: "title", x: view.width - MARGIN.right, y: CHART_HEIGHT - 5, "text-anchor": "end" }, chart.x_title));
  chart.series.forEach((series, place) => picture.append(...seriesShapes(series, hues[place], view)));
  return picture;
}

function seriesShapes(series, hue, view) {
  let path = "";
  let pen = "M";
  const dots = [];
  series.y.forEach((value, n) => {
    if (value === null) { pen = "M"; return; }
    const at = [view.x(series.x[n]).toFixed(1), view.y(Math.min(Math.max(value, view.low), view.high)).toFixed(1)];
    path += `${pen}${at[0]} ${at[1]}`;
    pen = "L";
    const alone = (series.y[n - 1] ?? null) === null && (series.y[n + 1] ?? null) === null;
    if (alone || (series.style === "dots" && series.y.length <= 80)) {
      dots.push(shape("circle", { class: `s${hue}`, cx: at[0], cy: at[1], r: 2.6 }));
    }
  });
  return [shape("path", { class: `${series.style} s${hue}`, d: path }), ...dots];
}

// Show the values of all series at the place nearest to the pointer.
function point(chart, view, event, { cursor, dots, hues, tip }) {
  const area = event.currentTarget.getBoundingClientRect();
  const wanted = view.valueAt(event.clientX - area.left);
  let place = null;
  for (const series of chart.series) {
    for (const x of series.x) if (place === null || Math.abs(x - wanted) < Math.abs(place - wanted)) place = x;
  }
  if (place === null) return;
  const lines = [placeText(chart, place)];
  chart.series.forEach((series, number) => {
    const n = nearest(series.x, place);
    const value = series.y[n];
    const known = value !== null && value !== undefined;
    const apart = Math.abs(series.x[n] - place);
    const reached = apart <= Math.max((view.right - view.left) / 12, 0.51 * spacing(series.x, n));
    dots[number].setAttribute("visibility", known && reached ? "visible" : "hidden");
    if (!reached) return;
    if (known) {
      dots[number].setAttribute("cx", view.x(series.x[n]));
      dots[number].setAttribute("cy", view.y(Math.min(Math.max(value, view.low), view.high)));
    }
    const unit = chart.unit && known ? ` ${chart.unit}` : "";
    const where = apart > (view.right - view.left) / 100 ? ` (${placeText(chart, series.x[n])})` : "";
    lines.push([swatch(hues[number]), `${series.name}: ${known ? numberText(value) : "not a number"}${unit}${where}`]);
  });
  cursor.setAttribute("visibility", "visible");
  cursor.setAttribute("x1", view.x(place));
  cursor.setAttribute("x2", view.x(place));
  tip.show(view.x(place), event.clientY - area.top, ...lines);
}

// A place on the horizontal axis: "epoch 3", "time 1.5 s".
function placeText(chart, x) {
  const [, name, unit] = /^(.*) \((.*)\)$/.exec(chart.x_title) ?? [null, chart.x_title, ""];
  return `${name} ${numberText(x)} ${unit}`.trim();
}

// The larger distance to the neighbors of a place.
function spacing(sorted, n) {
  const distances = [sorted[n] - sorted[n - 1], sorted[n + 1] - sorted[n]].filter((distance) => distance >= 0);
  return distances.length ? Math.max(...distances) : 0;
}

function nearest(sorted, wanted) {
  let [low, high] = [0, sorted.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low > 0 && wanted - sorted[low - 1] < sorted[low] - wanted ? low - 1 : low;
}
