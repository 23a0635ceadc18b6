// Draws each chart from the table below it: what is drawn is what a screen reader reads.
"use strict";
(() => {
  const drawn = new Map();
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const two = (number) => String(number).padStart(2, "0");

  const clock = (seconds) => {
    const at = new Date(seconds * 1000);
    return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}`;
  };
  const day = (seconds) =>
    new Date(seconds * 1000).toLocaleDateString("en-GB", {
      weekday: "short", day: "numeric", timeZone: "UTC",
    });
  const trim = (number) => String(Math.round(number * 10) / 10);
  const lasting = (seconds) => {
    if (seconds === null) return "–";
    if (seconds < 60) return `${trim(seconds)} s`;
    if (seconds < 3600) return `${trim(seconds / 60)} min`;
    if (seconds < 86400) return `${trim(seconds / 3600)} h`;
    return `${trim(seconds / 86400)} d`;
  };
  const number = (value) => (value === null ? "–" : value.toLocaleString("en-GB"));
  const short = (value) =>
    value >= 1e6 ? `${trim(value / 1e6)} M` : value >= 1e4 ? `${trim(value / 1e3)} k` : number(value);

  const read = (table) => {
    const names = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.textContent.trim());
    const rows = [...table.tBodies[0].rows].reverse(); // the newest stands first
    const at = rows.map((row) => Date.parse(row.cells[0].firstElementChild.dateTime) / 1000);
    const values = names.map((_, place) =>
      rows.map((row) => {
        const value = row.cells[place + 1].dataset.value;
        return value === "" ? null : Number(value);
      }));
    return { names, at, values };
  };

  // One unit for all marks of an axis, so that they can be compared.
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200,
    86400, 172800, 604800, 2592000];

  const options = (figure, names) => {
    const isTime = figure.dataset.unit === "time";
    const step = Number(figure.dataset.step);
    const colours = [css("--chart-1"), css("--chart-2")];
    const axis = { stroke: css("--pico-muted-color"), font: "12px system-ui, sans-serif" };
    const grid = { stroke: css("--edge"), width: 1 };
    const none = { show: false };
    return {
      width: figure.clientWidth,
      height: 190,
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      cursor: { y: false, drag: { x: false, y: false } },
      select: none,
      scales: {
        y: { range: (_, __, most) => [0, Math.max(most * 1.08, isTime ? 10 : 4)] },
      },
      axes: [
        { ...axis, grid: none, ticks: { ...grid, size: 4 }, space: 64, size: 32,
          values: (_, splits) => splits.map((at) =>
            step >= 3600 ? day(at) : clock(at)),
          ...(step >= 3600 ? { incrs: [86400, 172800] } : {}) },
        { ...axis, grid, ticks: none, size: 58,
          incrs: isTime ? steps : undefined,
          values: (_, splits) => splits.map((value) =>
            isTime ? lasting(value) : Number.isInteger(value) ? short(value) : "") },
      ],
      series: [
        { value: (_, at) => (at === null ? "" : step >= 3600 ? `${day(at)} ${clock(at)}` : clock(at)),
          label: "" },
        ...names.map((label, place) => ({
          label,
          stroke: colours[place],
          width: 2,
          fill: place === 0 && !isTime ? css("--chart-fill") : undefined,
          paths: isTime ? uPlot.paths.linear() : uPlot.paths.stepped({ align: 1 }),
          points: { show: isTime, size: 5, fill: colours[place] },
          spanGaps: isTime,
          value: (_, value, __, place) =>
            (place === null ? "" : isTime ? lasting(value) : number(value)),
        })),
      ],
    };
  };

  const draw = (figure, anew) => {
    const table = document.getElementById(figure.dataset.table);
    if (!table) return;
    const { names, at, values } = read(table);
    // A step lasts until the next begins, the last one too.
    const isStepped = figure.dataset.unit !== "time";
    const data = isStepped
      ? [[...at, at.at(-1) + Number(figure.dataset.step)], ...values.map((of) => [...of, of.at(-1)])]
      : [at, ...values];
    const before = drawn.get(figure);
    if (before && !anew) {
      before.setData(data);
      return;
    }
    if (before) before.destroy();
    drawn.set(figure, new uPlot(options(figure, names), data, figure));
  };

  const all = (anew) => {
    for (const figure of document.querySelectorAll(".chart[data-table]")) draw(figure, anew);
  };

  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const chart = drawn.get(target);
      if (chart && target.clientWidth && chart.width !== target.clientWidth) {
        chart.setSize({ width: target.clientWidth, height: chart.height });
      }
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    all(true);
    for (const figure of document.querySelectorAll(".chart[data-table]")) sized.observe(figure);
  });
  document.addEventListener("htmx:oobAfterSwap", () => all(false));
  dark.addEventListener("change", () => all(true));
})();
