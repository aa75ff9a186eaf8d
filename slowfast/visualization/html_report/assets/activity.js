// Where and when event-driven inference computed the patches of a video.

function activitySection(activity, colors) {
  const palette = colors.match(/.{6}/g).map((code) => `#${code}`);
  const cards = activity.videos.map((video) => activityCard(video, palette));
  const opacity = element("input", { type: "range", min: 0, max: 100, value: 65, "aria-label": "Opacity of the heat maps",
    input: () => { list.style.setProperty("--opacity", opacity.value / 100); } });
  const list = element("div", { class: "cards" }, ...cards);
  const only = activity.total > cards.length ? ` The first ${cards.length} of ${activity.total} videos are drawn.` : "";
  return element("div", {},
    element("p", { class: "note" }, `Left: how often each patch of the first stage was computed, on the first frame. Right: patches computed over time.${only}`),
    element("div", { class: "bar" }, element("label", {}, "Heat map opacity ", opacity),
      colorBar("patch computed in (% of the frames)", (share) => palette[Math.round(255 * share)], ["0", "50", "100"])),
    list);
}

function activityCard(video, palette) {
  const levels = bytesOf(video.heat);
  const mean = (levels.reduce((sum, level) => sum + level, 0) / levels.length / 2.55).toFixed(1);
  const map = element("div", { class: "heat" },
    element("img", { src: `data:image/jpeg;base64,${video.image}`, alt: `first frame of ${video.name}` }),
    heatCanvas(levels, video.side, palette));
  const tip = tooltip(map);
  map.addEventListener("pointermove", (event) => {
    const area = map.getBoundingClientRect();
    const [x, y] = [event.clientX - area.left, event.clientY - area.top];
    const [column, row] = [x / area.width, y / area.height].map((part) => Math.min(Math.floor(part * video.side), video.side - 1));
    const level = levels[Math.max(row, 0) * video.side + Math.max(column, 0)];
    tip.show(x, y, `row ${row + 1}, column ${column + 1}: computed in ${(level / 2.55).toFixed(0)} % of the frames`);
  });
  map.addEventListener("pointerleave", () => tip.hide());
  const count = video.starts.length;
  // Runs of earlier versions recorded no times.
  const [x, x_title] = video.times ? [video.times, `time (${video.time_unit})`] : [video.starts, "frame"];
  const shares = Array.from(new Uint16Array(bytesOf(video.shares).buffer), (level) => level / 500); // in percent
  const series = Array.from({ length: video.stages }, (_, stage) => (
    { name: `stage ${stage + 1}`, x, y: shares.slice(stage * count, (stage + 1) * count), style: "line" }));
  const chart = lineChart({ title: "patches computed", unit: "%", x_title, series, note: "", low: 0, high: 100 });
  return element("article", { class: "card" }, element("h3", {}, video.name),
    element("p", { class: "note" }, `${video.frames} frames; ${mean} % of the patches of the first stage computed on average`),
    element("div", { class: "activity" }, map, chart));
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}

function heatCanvas(levels, side, palette) {
  const canvas = element("canvas", { width: side, height: side });
  const context = canvas.getContext("2d");
  levels.forEach((level, place) => {
    context.fillStyle = palette[level];
    context.fillRect(place % side, Math.floor(place / side), 1, 1);
  });
  return canvas;
}
