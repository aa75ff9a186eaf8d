// Tables that are sorted by a click on a heading and filtered by a word.

const FIRST_ROWS = 100; // shown until all are asked for

function compareValues(one, other) {
  const missing = (one === null || one === undefined ? 1 : 0) - (other === null || other === undefined ? 1 : 0);
  if (missing !== 0 || one === null || one === undefined) return { missing, order: 0 };
  if (typeof one === "number" && typeof other === "number") return { missing, order: one - other };
  return { missing, order: String(one).localeCompare(String(other), undefined, { numeric: true }) };
}

// table: columns {title, kind, digits, code} and rows of values; chosen(row) is called for a click on a row.
function sortableTable(table, { name, sortBy = null, descending = false, chosen = null } = {}) {
  const state = { sortBy, descending, all: false, words: "" };
  const body = element("tbody");
  const note = element("span", { class: "note" });
  const more = element("button", { type: "button", click: () => { state.all = true; fill(); } });
  const heads = table.columns.map((column, place) => {
    const button = element("button", { type: "button", click: () => sort(place) }, column.title);
    return element("th", { scope: "col", class: column.kind === "text" ? null : "number" }, button);
  });

  function sort(place) {
    // Numbers start with the largest, text with the first letter.
    const first = table.columns[place].kind !== "text";
    state.descending = state.sortBy === place ? !state.descending : first;
    state.sortBy = place;
    fill();
  }

  function wanted() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = table.rows.filter((row) => {
      const text = row.join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (state.sortBy === null) return rows;
    const sign = state.descending ? -1 : 1;
    return rows.slice().sort((one, other) => {
      const { missing, order } = compareValues(one[state.sortBy], other[state.sortBy]);
      return missing || sign * order;
    });
  }

  function fill() {
    const rows = wanted();
    const shown = state.all ? rows : rows.slice(0, FIRST_ROWS);
    body.replaceChildren(...shown.map((row) => tableRow(table.columns, row, chosen)));
    heads.forEach((head, place) => {
      const direction = state.descending ? "descending" : "ascending";
      if (place === state.sortBy) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    });
    const all = table.rows.length;
    note.textContent = rows.length === all ? `${all} rows` : `${rows.length} of ${all} rows`;
    more.hidden = shown.length === rows.length;
    more.textContent = `Show all ${rows.length} rows`;
  }

  const filter = element("input", {
    type: "search", placeholder: "Filter", "aria-label": `Filter ${name}`,
    input: (event) => { state.words = event.target.value; fill(); },
  });
  const bar = table.rows.length > 8 ? element("div", { class: "bar" }, filter, note) : null;
  fill();
  const grid = element("table", { "aria-label": name }, element("thead", {}, element("tr", {}, ...heads)), body);
  return element("div", { class: "sortable" }, bar, element("div", { class: "scroll" }, grid), more);
}

function tableRow(columns, row, chosen) {
  const cells = columns.map((column, place) => {
    const value = row[place];
    const text = column.kind === "text" ? (value ?? "–") : numberText(value, value === null ? null : column.digits);
    const kind = [column.kind, column.code ? "code" : "", column.kind === "text" && String(text).length > 60 ? "long" : ""];
    const cell = element("td", { class: kind.filter(Boolean).join(" ") }, String(text));
    if (column.kind === "percent" && typeof value === "number") cell.style.setProperty("--share", `${value}%`);
    return cell;
  });
  if (chosen === null) return element("tr", {}, ...cells);
  const act = () => chosen(row);
  const press = (event) => event.key === "Enter" && act();
  return element("tr", { class: "choice", tabindex: 0, click: act, keydown: press }, ...cells);
}
