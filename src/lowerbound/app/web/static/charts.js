"use strict";
// Charts of the dashboard: each takes an element and a part of the board. Colours come from the style sheet.
const Charts = (() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const local = (time) => {
    const date = new Date(time * 1000);
    return new Date(date.getTime() - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
  };
  const narrow = () => window.innerWidth < 640;

  function layout(more) {
    const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), tickfont: { size: 11 }, fixedrange: true };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 8, t: 6, b: 30 }, hovermode: "x unified",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("quiet") }, showlegend: true, uirevision: "same", separators: ".,",
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink"), size: 12 } },
      ...more, xaxis: { ...axis, tickangle: 0, nticks: narrow() ? 4 : 8, ...(more.xaxis || {}) }, yaxis: { ...axis, rangemode: "tozero", nticks: 5, ...(more.yaxis || {}) },
      ...(more.yaxis2 ? { yaxis2: { ...axis, ...more.yaxis2 } } : {}),
    };
  }

  function draw(element, name, says, traces, more, low) {
    let place = element.querySelector(`[data-chart="${name}"]`);
    if (!place) {
      place = document.createElement("div");
      place.dataset.chart = name;
      place.className = low ? "chart low" : "chart";
      place.setAttribute("role", "img");
      element.append(place);
    }
    place.setAttribute("aria-label", says);
    if (!window.Plotly) {
      place.className = "empty";
      place.textContent = says;
      return;
    }
    window.Plotly.react(place, traces, layout(more), { displayModeBar: false, responsive: true });
  }

  const line = (x, y, name, shade, more) => ({ type: "scatter", mode: "lines", x, y, name, line: { color: colour(shade), width: 2 }, connectgaps: false, ...more });

  function traffic(element, part) {
    const x = part.time.map(local), per = (value, i) => (60 * value) / Math.min(part.width_s, part.until - part.time[i]);
    const bar = (name, rows, shade) => ({ type: "bar", x, y: rows.map(per), name, marker: { color: colour(shade) }, hovertemplate: "%{y:.3~g}" });
    const shades = { stable: "one", canary: "two", shadow: "three", pinned: "four" };
    const traces = Object.entries(part.answered).map(([alias, rows]) => bar(alias, rows, shades[alias] || "four"));
    if (part.refused.some((n) => n)) traces.push(bar("refused", part.refused, "six"));
    if (part.failed.some((n) => n)) traces.push(bar("failed", part.failed, "five"));
    if (part.aside.some((n) => n)) traces.push(line(x, part.aside.map(per), "scored aside", "three", { line: { color: colour("three"), width: 1.5, dash: "dot" }, hovertemplate: "%{y:.3~g}" }));
    draw(element, "traffic", "Bars: rows per minute over time, by who answered them.", traces, { barmode: "stack", bargap: 0.12, yaxis: { title: { text: "rows / min", font: { size: 11 } } } });
  }

  function latency(element, part) {
    const x = part.time.map(local), few = part.p50.filter((value) => value !== null).length < 30;
    const more = { hovertemplate: "%{y:.3~g} ms", mode: few ? "lines+markers" : "lines" };
    draw(element, "latency", "Lines: percentiles of the time of requests, and mean times in the queue and of computing, in milliseconds.", [
      line(x, part.p99, "p99", "five", more), line(x, part.p50, "p50", "one", more),
      line(x, part.queue, "queue, mean", "two", { ...more, line: { color: colour("two"), width: 1.5, dash: "dot" } }),
      line(x, part.compute, "compute, mean", "four", { ...more, line: { color: colour("four"), width: 1.5, dash: "dash" } }),
    ], { yaxis: { title: { text: "ms", font: { size: 11 } } } });
  }

  function rolling(element, part, name, unit, range) {
    const x = part.time.map(local), traces = [];
    if (part.low !== null && x.length) {
      const ends = range.map(local), edge = { width: 1, dash: "dot", color: colour("one") };
      traces.push(line(ends, [part.low, part.low], "band", "one", { line: edge, showlegend: false, hoverinfo: "skip" }));
      traces.push(line(ends, [part.high, part.high], "3-sigma band", "one", { line: edge, fill: "tonexty", fillcolor: colour("band"), hoverinfo: "skip" }));
    }
    const some = part.mean.map((value, i) => (part.n[i] >= part.fewest ? value : null));
    traces.push(line(x, some, "average of 5 min", "one", { mode: x.length < 80 ? "lines+markers" : "lines", marker: { size: 4 }, hovertemplate: "%{y:.4~g}" }));
    const alarms = part.alarms.map((alarm, i) => (alarm ? i : -1)).filter((i) => i >= 0);
    if (alarms.length) traces.push({ type: "scatter", mode: "markers", x: alarms.map((i) => x[i]), y: alarms.map((i) => some[i]), name: "alarm", marker: { color: colour("five"), size: 9, symbol: "x" }, hoverinfo: "skip" });
    draw(element, name, `Line: five-minute averages of the ${name}, ${alarms.length} of them alarms.`, traces, { xaxis: { range: range.map(local) }, yaxis: { rangemode: "normal", title: { text: unit, font: { size: 11 } } } });
  }

  function units(element, part) {
    const count = part.shift.length, x = [...Array(count).keys()];
    const clip = (value, most) => (value === null ? null : Math.max(-1, Math.min(1, value / most)));
    const words = (value, text) => (value === null ? "inactive in the reference" : text);
    const z = [part.ratio.map((value) => clip(value === null ? null : Math.log2(Math.max(value, 1e-9)), 1)), part.shift.map((value) => clip(value, 0.5))];
    const text = [
      x.map((i) => words(part.ratio[i], `unit ${i}<br>variance ${part.variance[i]}, reference ${part.reference_variance[i]}: × ${part.ratio[i]?.toPrecision(3)}`)),
      x.map((i) => words(part.shift[i], `unit ${i}<br>mean ${part.mean[i]}, reference ${part.reference_mean[i]}: ${part.shift[i]?.toFixed(3)} deviations`)),
    ];
    const heat = { type: "heatmap", x, y: ["variance", "mean"], z, text, hoverinfo: "text", zmin: -1, zmax: 1, showscale: false, xgap: count > 200 ? 0 : 1, ygap: 3, colorscale: [[0, colour("cold")], [0.5, colour("middle")], [1, colour("hot")]] };
    const traces = [heat], more = { hovermode: "closest", showlegend: false, margin: { l: 62, r: 8, t: 6, b: 34 }, xaxis: { title: { text: "unit", font: { size: 11 } }, showgrid: false, anchor: part.rate ? "y2" : "y" }, yaxis: { type: "category", domain: part.rate ? [0.5, 1] : [0, 1], showgrid: false, ticks: "" } };
    if (part.rate) {
      traces.push({ type: "bar", x, y: part.rate, yaxis: "y2", marker: { color: colour("one") }, hovertemplate: "unit %{x}: %{y:.3g} nats<extra></extra>" });
      more.yaxis2 = { domain: [0, 0.42], anchor: "x", rangemode: "tozero", nticks: 3, title: { text: "rate, nats", font: { size: 11 } } };
    }
    draw(element, "units", `Heat strip of ${count} units: how far mean and variance are from the reference; below it the mean rate of each.`, traces, more);
  }

  function codebook(element, part) {
    const order = part.reference_share.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]).map((pair) => pair[1]);
    const x = order.map((_, i) => i), text = order.map((i) => `code ${i}`);
    draw(element, "codebook", `Bars: share of each of ${part.codes} codes now, beside the reference.`, [
      { type: "bar", x, y: order.map((i) => 100 * part.share[i]), text, textposition: "none", name: "now", marker: { color: colour("one") }, hovertemplate: "%{text}: %{y:.3~g} %<extra>now</extra>" },
      line(x, order.map((i) => 100 * part.reference_share[i]), "reference", "two", { line: { color: colour("two"), width: 1.5, shape: "hvh" }, hovertemplate: "%{y:.3~g} %" }),
    ], { bargap: 0.05, xaxis: { title: { text: "codes, by their use in the reference", font: { size: 11 } }, showticklabels: false }, yaxis: { title: { text: "% of positions", font: { size: 11 } } } });
  }

  function evidence(element, name, part) {
    const more = (shade, dash) => ({ line: { color: colour(shade), width: 1.5, dash }, hovertemplate: `%{y:.3~g} ${part.unit}` });
    const top = Math.max(...part.mean.map(Math.abs), ...part.margin.map(Math.abs)), last = part.n.length - 1;
    const reach = Math.max(4 * top, 1.3 * Math.min(Math.abs(part.upper[last]), 10 * top + 1), 1.3 * Math.min(Math.abs(part.lower[last]), 10 * top + 1));
    draw(element, `evidence-${name}`, `Line with limits: ${name} over ${part.n[last]} requests; the state is ${part.state}.`, [
      line(part.n, part.lower, "limits", "one", { line: { width: 0.5, color: colour("one") }, showlegend: false, hovertemplate: `%{y:.3~g} ${part.unit}` }),
      line(part.n, part.upper, "limits, valid at any time", "one", { line: { width: 0.5, color: colour("one") }, fill: "tonexty", fillcolor: colour("band"), hovertemplate: `%{y:.3~g} ${part.unit}` }),
      line(part.n, part.mean, "candidate less stable", "one", more("one", "solid")),
      line(part.n, part.margin, "margin", "five", more("five", "dash")),
    ], { xaxis: { type: "log", tickvals: [1, 3, 10, 30, 100, 300, 1000, 3000, 1e4, 3e4, 1e5, 3e5, 1e6], title: { text: "requests compared", font: { size: 11 } } }, yaxis: { rangemode: "normal", range: [-reach, reach], title: { text: part.unit, font: { size: 11 } } } }, true);
  }

  const forget = (element) => { element.querySelectorAll(".js-plotly-plot").forEach((plot) => window.Plotly && window.Plotly.purge(plot)); element.replaceChildren(); };
  return { traffic, latency, rolling, units, codebook, evidence, forget, colour };
})();
