"use strict";
// The dashboard: asks for the board of a model every few seconds and shows it; a page with its data inside asks nobody.
(() => {
  const EVERY_MS = 5000, OLD_S = 300, KEY = "lowerbound-key", THEME = "lowerbound-theme";
  const $ = (id) => document.getElementById(id);
  const inside = $("data");
  const asked = new URLSearchParams(location.search);
  const state = { model: asked.get("model") || "", hours: Number(asked.get("hours")) || 24, board: null, since: null, timer: 0, asking: 0 };

  // ------------------------------------------------------------------------------------------------ small things

  function make(tag, options = {}, ...children) {
    const found = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "text") found.textContent = value;
      else if (name === "class") found.className = value;
      else if (value !== null && value !== undefined) found.setAttribute(name, value);
    }
    found.append(...children.filter((child) => child !== null && child !== undefined));
    return found;
  }
  const badge = (text, kind = "") => make("span", { class: `badge ${kind}`, text });
  const empty = (text) => make("p", { class: "empty", text });
  const short = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits }));
  const whole = (value) => Math.round(value).toLocaleString("en");
  const percent = (value, digits = 2) => `${short(100 * value, digits)} %`;
  const moment = (time) => new Date(time * 1000).toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
  function ago(seconds) {
    if (seconds < 90) return `${Math.max(0, Math.round(seconds))} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
  }
  const last = (values) => values.length ? values[values.length - 1] : null;
  const lead = (name, text) => { $(`l-${name}`).textContent = text; };
  const span = (hours) => (hours === 1 ? "the last hour" : hours === 168 ? "the last 7 days" : `the last ${hours} hours`);

  // A part is drawn again only where it changed, so that what a reader has opened or selected stays.
  const drawn = new Map();
  function part(name, value, draw) {
    const text = JSON.stringify([value, document.documentElement.dataset.theme, state.model]);
    if (drawn.get(name) === text) return;
    draw($(name), value);
    drawn.set(name, text);
  }
  function shown(element, text, chart) {
    if (text !== null) { Charts.forget(element); element.append(empty(text)); return; }
    element.querySelectorAll(".empty:not([data-chart])").forEach((old) => old.remove());
    chart();
  }

  // --------------------------------------------------------------------------------------------------- the parts

  const ACTIONS = { promote: ["promote", "good"], hold: ["hold", "warn"], roll_back: ["roll back", "bad"] };

  function tiles(board) {
    const found = [], add = (label, value, note, kind = "") => found.push(make("div", { class: `tile ${kind}` },
      make("dt", { text: label }), make("dd", {}, make("div", { class: "value", text: value, title: value }), make("div", { class: "note", text: note }))));
    const kept = board.telemetry;
    if (kept.here && kept.newest !== null) {
      const rows = kept.traffic.time.map((_, i) => Object.values(kept.traffic.answered).reduce((sum, each) => sum + each[i], kept.traffic.refused[i] + kept.traffic.failed[i]));
      const newest = rows.slice(-2).reduce((sum, each) => sum + each, 0), since = kept.traffic.time.slice(-2)[0];
      add("Traffic", `${short((60 * newest) / Math.max(60, board.made - since))} /min`, `${whole(kept.answers.asked)} rows in ${span(board.hours)}`);
      const share = kept.answers.asked ? kept.answers.lost / kept.answers.asked : 0;
      add("Not answered", percent(share), `${whole(kept.answers.lost)} rows; ${whole(kept.answers.failed)} by a fault of ours`, kept.answers.failed > 0.001 * kept.answers.asked ? "bad" : kept.answers.failed || share > 0.05 ? "warn" : "good");
      add("Latency, p99", kept.latency.recent_p99 === null ? "–" : `${short(kept.latency.recent_p99)} ms`, "of the newest requests");
      for (const [name, label] of [["error", "Error"], ["rate", "Rate"]]) {
        const rolled = kept.rolling[name], words = { inside: "inside its band", alarm: "outside its band", unknown: "no band yet" };
        const values = rolled.mean.filter((value, i) => value !== null && rolled.n[i] >= rolled.fewest);
        add(`${label}, 5 min`, short(last(values)) + (name === "rate" && values.length ? " nats" : ""), words[rolled.state], { inside: "good", alarm: "bad", unknown: "" }[rolled.state]);
      }
    }
    if (board.drift) {
      const look = last(board.drift.looks);
      if (look) add("Drift", look.alerts.length ? look.alerts.length === 1 ? "1 alert" : `${look.alerts.length} alerts` : look.drift ? "drift" : "none", `looked ${ago(board.made - look.time)} ago`, look.alerts.length || look.drift ? "bad" : "good");
    }
    const canary = board.canary, number = board.versions.aliases.canary;
    if (canary && canary.now) add("Canary", (ACTIONS[canary.verdict.action] || ["judged"])[0], `version ${canary.number}, ${whole(canary.verdict.requests || 0)} compared`, (ACTIONS[canary.verdict.action] || ["", ""])[1]);
    else if (number) add("Canary", `version ${number}`, "not judged yet", "warn");
    if (board.incidents) {
      const open = board.incidents.filter((one) => !one.closed).length;
      add("Open incidents", String(open), open ? "see below" : "nothing to do", open ? "bad" : "good");
    }
    const stable = board.versions.aliases.stable;
    add("Stable", stable ? `version ${stable}` : "none", board.model);
    $("tiles").replaceChildren(...found);
  }

  function telemetry(board) {
    const kept = board.telemetry, nothing = !kept.here ? kept.why : kept.newest === null ? "No request has come yet." : null;
    lead("traffic", kept.here ? `Rows of requests a minute, over ${span(board.hours)}.` : "");
    part("traffic", nothing || kept.traffic, (element) => shown(element, nothing, () => Charts.traffic(element, kept.traffic)));
    lead("latency", kept.here ? `Percentiles of up to ${kept.latency?.newest} requests in each span; means in the queue and of computing.` : "");
    const timed = nothing || (kept.latency.p50.some((value) => value !== null) ? null : "Too few requests whose times are known.");
    part("latency", timed || kept.latency, (element) => shown(element, timed, () => Charts.latency(element, kept.latency)));
    for (const [name, unit] of [["error", "mean squared error"], ["rate", "nats"]]) {
      const rolled = kept.rolling?.[name], some = rolled?.mean.some((value, i) => value !== null && rolled.n[i] >= rolled.fewest);
      const why = nothing || (some ? null : `No five minutes had ${rolled.fewest} rows whose ${name} is known.`);
      lead(name, rolled ? `Averages of five minutes, stable version. ${rolled.says}` : "");
      part(name, why || rolled, (element) => shown(element, why, () => Charts.rolling(element, rolled, name, unit, [kept.traffic.time[0], kept.traffic.until])));
    }
    part("reasons", nothing || kept.answers, (element) => reasons(element, nothing, kept));
    part("codes", nothing || kept.codes, (element) => codes(element, nothing, kept.codes));
  }

  function reasons(element, nothing, kept) {
    element.replaceChildren();
    lead("reasons", nothing ? "" : "The gate and the limits refuse with 4xx; 5xx are faults of ours.");
    if (nothing || !kept.answers.reasons.length) { element.append(empty(nothing || "All were answered.")); return; }
    const most = kept.answers.reasons[0].rows, body = make("tbody");
    for (const each of kept.answers.reasons) {
      const fill = make("i"); fill.style.width = `${(100 * each.rows) / most}%`;
      body.append(make("tr", {}, make("td", {}, make("code", { text: each.reason })), make("td", {}, badge(String(each.status), each.status >= 500 ? "bad" : "warn")),
        make("td", { class: "number", text: whole(each.rows) }), make("td", { class: "number", text: percent(each.rows / kept.answers.asked) }),
        make("td", { "aria-hidden": "true" }, make("div", { class: `bar ${each.status >= 500 ? "bad" : "warn"}` }, fill))));
    }
    const heads = ["reason", "status", "rows", "share", ""].map((text, i) => make("th", { text, scope: "col", class: i === 2 || i === 3 ? "number" : "" }));
    element.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)));
    const lost = Object.entries(kept.lost || {}).filter((pair) => pair[1]);
    if (lost.length) element.append(make("p", { class: "lead", text: `Facts that could not be kept: ${lost.map(([cause, rows]) => `${whole(rows)} (${cause})`).join(", ")}.` }));
  }

  function codes(element, nothing, found) {
    Charts.forget(element);
    const why = nothing || (!found ? "No version is stable." : found.why || (found.rows < found.fewest ? `${found.rows} rows with codes; ${found.fewest} are needed.` : null));
    lead("codes", why ? "" : `The newest ${whole(found.rows)} codes beside ${whole(found.reference_rows)} of the reference.`);
    if (why) { element.append(empty(why)); return; }
    if (found.codebook) {
      const book = found.codebook;
      lead("codes", `${whole(found.rows)} newest rows: ${book.used} of ${book.codes} codes used (reference ${book.reference_used}), perplexity ${short(book.perplexity)} (reference ${short(book.reference_perplexity)}).`);
      Charts.codebook(element, book);
    } else if (found.latent) {
      const latent = found.latent;
      lead("codes", `${whole(found.rows)} newest rows: ${latent.active} of ${latent.units} units active (reference ${latent.reference_active}); inactive ones are left blank. ${latent.aggregate ? "Variance is that of the aggregate posterior." : "Variance is that of the posterior means."}`);
      Charts.units(element, latent);
      const swatch = (name, text) => { const box = make("i"); box.style.background = Charts.colour(name); return make("li", {}, box, text); };
      element.append(make("ul", { class: "key" }, swatch("cold", "below the reference (half a deviation, half the variance)"), swatch("middle", "like the reference"), swatch("hot", "above it (half a deviation, twice the variance)")));
    } else element.append(empty("The codes are not those of the stable version's reference."));
  }

  function drift(element, found) {
    element.replaceChildren();
    const looks = found ? found.looks : [], look = last(looks);
    lead("drift", look ? `${looks.length === 1 ? "One look" : `${looks.length} looks`}, the newest of ${whole(look.requests || 0)} requests at ${moment(look.time)}${look.baseline ? `, beside ${look.baseline}` : ""}.` : "");
    if (!look) { element.append(empty(found ? "Nobody has looked yet: lowerbound monitor drift." : "Drift is shown to keys that may operate.")); return; }
    const names = [...new Set(looks.flatMap((one) => [...one.verdicts.map((each) => each.detector), ...one.signs.map((each) => each.name)]))];
    const grid = make("div", { class: "looks" });
    for (const name of names) {
      const cells = looks.map((one) => [...one.verdicts, ...one.signs].find((each) => each.detector === name || each.name === name));
      const alarms = cells.filter((each) => each && each.alarm).length;
      const strip = make("div", { class: "cells", role: "img", "aria-label": `${name}: ${alarms} of ${looks.length} looks alarm` });
      cells.forEach((each, i) => strip.append(make("i", { class: !each ? "none" : each.alarm ? "alarm" : "", title: `${moment(looks[i].time)}: ${!each ? "not asked" : each.alarm ? "alarm" : "no alarm"}${each && each.label ? ` (${each.label}, ${short(each.effect)})` : ""}` })));
      const now = last(cells);
      grid.append(make("div", {}, name, " ", now && now.alarm ? badge("alarm", "bad") : null), strip);
    }
    element.append(grid, make("ul", { class: "key" }, make("li", { text: "Each box is a look, the newest on the right; red and filled: alarm; green: none; grey: not asked." })));
    if (look.errors) element.append(make("p", { class: "lead", text: `Reconstruction ${look.errors.suffered ? "suffered" : "did not suffer"}: the mean error is ${short(look.errors.mean)}, ordinarily ${short(look.errors.ordinary_mean)}.` }));
    if (look.certificate) element.append(make("details", {}, make("summary", { class: "lead", text: "What is promised" }), make("p", { class: "lead", text: look.certificate })));
    if (look.alerts.length) element.append(make("h3", { text: "Alerts of the newest look" }), make("p", {}, ...look.alerts.map((name) => make("code", { text: name })).flatMap((each) => [each, " "])));
    if (found.drawn) {
      const ways = make("div", { class: "ways" });
      for (const way of found.drawn.directions) {
        const says = `${way.label}: moved ${short(way.moved)} deviations, spread × ${short(way.spread)}`;
        ways.append(make("figure", {}, make("figcaption", { text: says }), way.picture ? make("img", { src: way.picture, alt: `Decoded along ${says}` }) : null));
      }
      element.append(make("h3", { text: `Where the codes moved, drawn by the model (${moment(found.drawn.time)})` }), ways, causes(found.drawn.causes));
    }
  }

  function causes(found) {
    if (!found.length) return "";
    const body = make("tbody");
    for (const each of found) {
      const fill = make("i"); fill.style.width = `${Math.min(100, 100 * (each.share || 0))}%`;
      body.append(make("tr", {}, make("td", { text: each.name || "" }), make("td", { class: "number", text: `${percent(each.share || 0)}${each.stderr ? ` ± ${percent(each.stderr, 1)}` : ""}` }), make("td", { "aria-hidden": "true" }, make("div", { class: "bar warn" }, fill))));
    }
    return make("table", {}, make("thead", {}, make("tr", {}, ...["cause", "share of requests", ""].map((text, i) => make("th", { text, scope: "col", class: i === 1 ? "number" : "" })))), body);
  }

  function canary(element, [found, aliases]) {
    Charts.forget(element);
    lead("canary", "");
    if (!found) { element.append(empty(aliases.canary ? `Version ${aliases.canary} is canary; there is no verdict yet.` : "There is no canary: lowerbound registry promote NAME VERSION --as canary.")); return; }
    const verdict = found.verdict, [word, kind] = ACTIONS[verdict.action] || ["no verdict", ""];
    const rules = found.rules, terms = [];
    if (rules.share) terms.push(`${percent(rules.share)} of the traffic`);
    if (rules.soak_s) terms.push(`${short(rules.soak_s / 3600)} h`);
    if (rules.margin) terms.push(`${percent(rules.margin)} worse at most`);
    lead("canary", `${found.now ? "Version" : "The last candidate was version"} ${found.number}${found.started ? `, since ${moment(found.started)}` : ""}. ${terms.join(", ")}${verdict.judgement ? `; ${verdict.judgement}` : ""}.`);
    element.append(make("p", {}, badge(word, kind), ` ${verdict.reason || ""}`), verdict.override ? make("p", { class: "lead", text: `Decided by ${verdict.override.who}: ${verdict.override.why}` }) : "");
    const words = { error: "error, candidate against stable", far_worse: "surplus of far worse rows", frechet: "Fréchet distance" };
    for (const [name, curve] of Object.entries(found.curves)) {
      const states = { worse: ["worse", "bad"], fine: ["within the margin", "good"], open: ["open", "warn"] }[curve.state] || [curve.state, ""];
      element.append(make("h3", {}, words[name] || name, " ", badge(...states), curve.needs ? ` about ${whole(curve.needs)} more requests are needed` : ""));
      Charts.evidence(element, name, curve);
    }
  }

  function incidents(element, found) {
    element.replaceChildren();
    const open = found ? found.filter((one) => !one.closed).length : 0;
    lead("incidents", found && found.length ? `${open} open of the last ${found.length}.` : "");
    if (!found || !found.length) { element.append(empty(found ? "There are no incidents." : "Incidents are shown to keys that may operate.")); return; }
    for (const one of found) {
      const took = one.closed ? `closed after ${ago(one.closed - one.opened)}` : `open for ${ago(state.board.made - one.opened)}`;
      const line = make("ol", { class: "timeline" }, ...one.timeline.map((event) => make("li", {}, make("time", { text: event.time ? moment(event.time) : "" }), make("b", { text: `${event.step || ""} ` }), event.text || "")));
      const details = make("details", {}, make("summary", {}, badge(one.closed ? "closed" : "open", one.closed ? "" : "bad"), " ", make("code", { text: one.kind || "incident" }), " ", make("span", { class: "when", text: `${one.opened ? moment(one.opened) : ""}, ${took}` })), causes(one.causes), line,
        one.reports.length ? make("p", { class: "lead", text: `Reports in the telemetry's folder: ${one.reports.join(", ")}` }) : null);
      details.open = !one.closed && one === found[0];
      element.append(details);
    }
  }

  function versions(element, found) {
    element.replaceChildren();
    const names = (number) => Object.entries(found.aliases).filter((pair) => pair[1] === number).map((pair) => pair[0]);
    const kinds = { stable: "good", canary: "warn", shadow: "" }, body = make("tbody");
    lead("versions", `${found.versions.length} registered. Files never change; what moves are the aliases.`);
    for (const each of [...found.versions].reverse().slice(0, 8)) {
      body.append(make("tr", {}, make("td", { class: "number", text: String(each.number) }), make("td", {}, ...names(each.number).flatMap((alias) => [badge(alias, kinds[alias]), " "])), make("td", {}, make("code", { text: each.hash.slice(0, 10) })), make("td", { class: "when", text: moment(Date.parse(each.created) / 1000) }), make("td", { class: "number", text: each.parent || "–" })));
    }
    element.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...["version", "alias", "hash", "added", "parent"].map((text, i) => make("th", { text, scope: "col", class: i === 0 || i === 4 ? "number" : "" })))), body)));
    const lines = found.history.filter((entry) => entry.action !== "add").slice(0, 8).map((entry) => make("li", {}, make("time", { text: moment(Date.parse(entry.time) / 1000) }), make("b", { text: `${entry.action} ` }), `${entry.alias || ""} ${entry.before || "none"} → ${entry.number || "none"}${entry.why ? `: ${entry.why}` : ""}`));
    if (lines.length) element.append(make("h3", { text: "What moved" }), make("ol", { class: "timeline" }, ...lines));
    if (inside || !found.back) return;
    if (!state.board.operates) { element.append(make("p", { class: "lead", text: "A key that may operate can roll back here." })); return; }
    const button = make("button", { type: "button", id: "rollback", text: `Roll back version ${found.aliases.stable} to ${found.back} …` });
    button.addEventListener("click", () => ask(found));
    element.append(make("p", { class: "actions" }, button));
  }

  // ------------------------------------------------------------------------------------------------ the rollback

  function ask(found) {
    $("h-confirm").textContent = `Roll back ${state.model}?`;
    $("consequence").textContent = `Version ${found.back} serves again instead of ${found.aliases.stable}. Requests that have begun are finished by the old one.`;
    $("why").value = "";
    $("confirm").dataset.expected = found.aliases.stable;
    $("confirm").showModal();
    $("why").focus();
  }

  async function rollBack(event) {
    event.preventDefault();
    if (!$("why").value.trim()) return;
    $("do").disabled = true;
    const body = JSON.stringify({ expected: Number($("confirm").dataset.expected), why: $("why").value.trim() });
    try {
      const answer = await fetch(`/v1/models/${encodeURIComponent(state.model)}/rollback`, { method: "POST", body, headers: { ...head(), "content-type": "application/json", "x-lowerbound-confirm": "rollback" } });
      const found = await answer.json();
      say("action", answer.ok ? `Rolled back: version ${found.number} is stable.` : `Not rolled back: ${found.detail}`, answer.ok ? "" : "bad");
    } catch {
      say("action", "Not rolled back: the server does not answer.", "bad");
    }
    $("do").disabled = false;
    $("confirm").close();
    setTimeout(() => say("action", null), 20000);
    drawn.delete("versions");
    await look(true);
  }

  // -------------------------------------------------------------------------------------------------- the asking

  function say(name, text, kind = "") {
    let place = document.querySelector(`[data-banner="${name}"]`);
    if (!text) { if (place) place.remove(); return; }
    if (!place) { place = make("p", { "data-banner": name, role: "alert" }); $("banners").append(place); }
    place.className = `banner ${kind}`;
    if (place.textContent !== text) place.textContent = text;
  }
  const live = (text, kind) => { $("live").textContent = text; $("live").className = `live ${kind}`; };
  function head() {
    const key = sessionStorage.getItem(KEY);
    return key ? { authorization: `Bearer ${key}` } : {};
  }

  function show(board) {
    state.board = board;
    state.model = board.model;
    document.title = `${board.model} – lowerbound`;
    $("board").hidden = false;
    $("main").classList.remove("old");
    tiles(board);
    telemetry(board);
    part("drift", board.drift, drift);
    part("canary", [board.canary, board.versions.aliases], canary);
    part("incidents", board.incidents, incidents);
    part("versions", [board.versions, board.operates], (element) => versions(element, board.versions));
    const age = board.telemetry.here && board.telemetry.newest !== null ? board.made - board.telemetry.newest : null;
    say("quiet", age !== null && age > OLD_S ? `No request for ${ago(age)}: the newest is of ${moment(board.telemetry.newest)}.` : null);
  }

  function login(wrong) {
    $("board").hidden = true;
    $("login").hidden = false;
    $("forget").hidden = true;
    $("wrong").hidden = !wrong;
    $("wrong").textContent = wrong || "";
    live("key needed", "warn");
    $("key").focus();
  }

  async function look(now = false) {
    clearTimeout(state.timer);
    const turn = ++state.asking;
    if (document.hidden && !now) { state.timer = setTimeout(look, EVERY_MS); return; }
    try {
      const answer = await fetch(`/v1/dashboard?model=${encodeURIComponent(state.model)}&hours=${state.hours}`, { headers: head(), cache: "no-store" });
      if (turn !== state.asking) return;
      if (answer.status === 401) {
        const had = sessionStorage.getItem(KEY);
        sessionStorage.removeItem(KEY);
        login(had ? "The server does not know this key." : "");
        return;
      }
      const board = await answer.json();
      if (turn !== state.asking) return;
      if (!answer.ok) {
        if (board.code === "no-such-model" && state.model) state.model = "";
        throw new Error(board.detail);
      }
      say("gone", null);
      $("login").hidden = true;
      $("forget").hidden = !sessionStorage.getItem(KEY);
      choices(board.models, board.model);
      state.since = Date.now();
      show(board);
      live(`live, ${new Date(board.made * 1000).toLocaleTimeString("en-GB")}`, "good");
    } catch (error) {
      if (turn !== state.asking) return;
      const from = state.board ? ` What is shown is of ${new Date(state.board.made * 1000).toLocaleTimeString("en-GB")}.` : "";
      const gone = error instanceof TypeError;
      say("gone", `${gone ? "The server does not answer." : error.message}${from}`, "bad");
      live(gone ? "server gone" : "trouble", "bad");
      $("main").classList.toggle("old", Boolean(state.board));
    }
    state.timer = setTimeout(look, EVERY_MS);
  }

  function choices(models, model) {
    if ($("model").childElementCount !== models.length) $("model").replaceChildren(...models.map((name) => make("option", { value: name, text: name })));
    $("model").value = model;
  }

  function chosen() {
    document.querySelectorAll("[data-hours]").forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.hours) === state.hours)));
    history.replaceState(null, "", `?${new URLSearchParams({ ...(state.model ? { model: state.model } : {}), hours: state.hours })}`);
  }

  function theme(name) {
    document.documentElement.dataset.theme = name;
    $("theme").textContent = name === "dark" ? "Light" : "Dark";
    if (state.board) { drawn.clear(); show(state.board); }
  }

  function preferred() {
    let kept = null;
    try { kept = localStorage.getItem(THEME); } catch { /* a page in a file may not keep anything */ }
    return kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  }

  $("theme").addEventListener("click", () => {
    const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem(THEME, next); } catch { /* as above */ }
    theme(next);
  });
  theme(preferred());
  if (inside) {
    const board = JSON.parse(inside.textContent);
    state.hours = board.hours;
    show(board);
    live(`as of ${moment(board.made)}`, "");
    return;
  }
  $("model").addEventListener("change", () => { state.model = $("model").value; drawn.clear(); chosen(); look(true); });
  document.querySelectorAll("[data-hours]").forEach((button) => button.addEventListener("click", () => { state.hours = Number(button.dataset.hours); chosen(); look(true); }));
  $("login").addEventListener("submit", (event) => { event.preventDefault(); sessionStorage.setItem(KEY, $("key").value.trim()); $("key").value = ""; look(true); });
  $("forget").addEventListener("click", () => { sessionStorage.removeItem(KEY); look(true); });
  $("cancel").addEventListener("click", () => $("confirm").close());
  $("confirm").querySelector("form").addEventListener("submit", rollBack);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) look(true); });
  chosen();
  look(true);
})();
