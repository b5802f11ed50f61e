"use strict";
// The latent explorer: one code, a slider for each unit; the browser holds the code, the server only decodes.
(() => {
  const KEY = "lowerbound-key", THEME = "lowerbound-theme", FIRST = 16, WIDER = 0.25, TRIES = 30;
  const $ = (id) => document.getElementById(id);
  const state = { models: [], model: null, known: null, start: null, code: null, busy: false, again: false, all: false };

  const head = () => { const key = sessionStorage.getItem(KEY); return key ? { authorization: `Bearer ${key}` } : {}; };
  function trouble(text) { $("trouble").hidden = !text; $("trouble").textContent = text || ""; }
  const live = (text, kind) => { $("live").textContent = text; $("live").className = `live ${kind}`; };

  async function ask(path, options = {}) {
    const answer = await fetch(path, { ...options, headers: { ...head(), ...(options.headers || {}) } });
    if (answer.ok) return answer;
    const problem = await answer.json();
    throw Object.assign(new Error(answer.status === 401 ? "A key is needed: give it on the dashboard first." : problem.detail), { status: answer.status });
  }
  const verb = (name, body, accept, query = "") => ask(`/v1/models/${encodeURIComponent(state.model.name)}/${name}${query}`, { method: "POST", body: body === null ? undefined : JSON.stringify(body), headers: { accept, ...(body === null ? {} : { "content-type": "application/json" }) } });
  const label = () => (state.model.labels ? { label: Number($("label").value) } : {});

  async function attempt(work) {
    try { await work(); trouble(""); live("ready", "good"); }
    catch (error) { trouble(error instanceof TypeError ? "The server does not answer." : error.message); live("trouble", "bad"); }
  }

  // What begins with another code, one after the other. Sliders rest meanwhile: they would move a code that is leaving.
  let acts = Promise.resolve(), waiting = 0;
  function act(work) {
    $("sliders").inert = true;
    waiting += 1;
    acts = acts.then(() => attempt(work)).then(() => { waiting -= 1; $("sliders").inert = waiting > 0; });
  }

  function put(id, blob) {
    const image = $(id), before = image.src;
    image.src = URL.createObjectURL(blob);
    if (before.startsWith("blob:")) URL.revokeObjectURL(before);
  }

  // Rows (channels, height, width) as the model stores them, of a picture of any size.
  async function rowOf(file) {
    const [channels, height, width] = state.model.rows.shape, top = state.model.rows.levels - 1;
    const picture = await createImageBitmap(file).catch(() => { throw new Error("This file is no picture that the browser can read."); });
    const canvas = document.createElement("canvas");
    canvas.width = width; canvas.height = height;
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    brush.drawImage(picture, 0, 0, width, height);
    const bytes = brush.getImageData(0, 0, width, height).data, row = [];
    for (let channel = 0; channel < channels; channel++) {
      row.push([...Array(height).keys()].map((y) => [...Array(width).keys()].map((x) => {
        const i = 4 * (y * width + x);
        const value = channels === 3 ? bytes[i + channel] : 0.299 * bytes[i] + 0.587 * bytes[i + 1] + 0.114 * bytes[i + 2];
        return Math.round((value / 255) * top);
      })));
    }
    const blob = await new Promise((done) => canvas.toBlob(done));
    return [row, blob];
  }

  async function begin(row, shown) {
    put("input", shown);
    const found = await (await verb("encode", { rows: [row], ...label() }, "application/json")).json();
    state.start = found.codes[state.known.group][0].flat(Infinity);
    state.code = [...state.start];
    sliders();
    put("before", await decoded());
    await redraw();
  }

  function nested(values, shape) {
    if (shape.length <= 1) return values;
    const size = values.length / shape[0];
    return [...Array(shape[0]).keys()].map((i) => nested(values.slice(i * size, (i + 1) * size), shape.slice(1)));
  }
  const decoded = async () => (await verb("decode", { codes: { [state.known.group]: [nested(state.code, state.known.shape)] }, ...label() }, "image/png")).blob();

  // One request at a time, and the newest code after it: a slider is faster than any server.
  async function redraw() {
    if (state.busy) { state.again = true; return; }
    state.busy = true;
    await attempt(async () => { do { state.again = false; put("after", await decoded()); } while (state.again); });
    state.busy = false;
  }

  function sliders() {
    const shown = state.all ? state.known.units : state.known.units.slice(0, FIRST);
    $("sliders").replaceChildren(...shown.map((unit) => {
      const low = state.known.low[unit], high = state.known.high[unit], wider = WIDER * (high - low) + 0.01;
      const box = document.createElement("div"), name = document.createElement("label"), input = document.createElement("input"), value = document.createElement("output");
      const tells = state.known.tells[unit];
      box.className = "slider"; input.type = "range"; input.id = `unit-${unit}`; name.htmlFor = input.id;
      input.min = Math.min(low - wider, state.start[unit]); input.max = Math.max(high + wider, state.start[unit]); input.step = "any";
      input.value = state.code[unit];
      name.textContent = `unit ${unit}${tells === null ? "" : `, ${tells.toFixed(2)} nats`}`;
      const tell = () => { value.textContent = Number(state.code[unit]).toFixed(2); box.classList.toggle("moved", Math.abs(state.code[unit] - state.start[unit]) > 1e-9); };
      input.addEventListener("input", () => { state.code[unit] = Number(input.value); tell(); redraw(); });
      input.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
        if (!step) return;
        event.preventDefault();
        input.value = Number(input.value) + (step * (input.max - input.min)) / 50;
        input.dispatchEvent(new Event("input"));
      });
      input.addEventListener("dblclick", () => { input.value = state.start[unit]; input.dispatchEvent(new Event("input")); });
      tell();
      box.append(name, input, value);
      return box;
    }));
    $("reset").disabled = false;
    $("more").hidden = state.all || state.known.units.length <= FIRST;
  }

  async function choose(name) {
    state.model = state.models.find((model) => model.name === name) || state.models[0];
    $("model").value = state.model.name;
    $("labelled").hidden = !state.model.labels;
    $("label").max = Math.max(0, state.model.labels - 1);
    $("sliders").replaceChildren();
    state.known = await (await ask(`/v1/explorer?model=${encodeURIComponent(state.model.name)}`)).json();
    const usable = Boolean(state.known.units && state.model.rows.pictures);
    document.querySelectorAll(".explore > *").forEach((section) => { section.hidden = !usable; });
    if (!state.model.rows.pictures) throw new Error("The rows of this model are no pictures; the explorer draws pictures only.");
    if (!state.known.units) throw new Error(state.known.why);
    await sample();
  }

  async function drawnFrom(seed) {
    const query = `?count=1&seed=${seed}${state.model.labels ? `&label=${Number($("label").value)}` : ""}`;
    const [rows, picture] = await Promise.all([verb("sample", null, "application/json", query), verb("sample", null, "image/png", query)]);
    await begin((await rows.json()).rows[0], await picture.blob());
  }

  // The gate may refuse what a prior gives (flat, or far out); then the next seed is tried.
  async function sample() {
    const first = Math.max(0, Math.floor(Number($("seed").value) || 0));
    for (let seed = first; ; seed++) {
      try { await drawnFrom(seed); $("seed").value = seed; return; } catch (error) { if (error.status !== 422 || seed - first >= TRIES) throw error; }
    }
  }

  let kept = null;
  try { kept = localStorage.getItem(THEME); } catch { /* nothing is kept */ }
  document.documentElement.dataset.theme = kept || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  $("model").addEventListener("change", () => act(() => choose($("model").value)));
  $("sample").addEventListener("click", () => act(sample));
  $("label").addEventListener("change", () => act(sample));
  $("file").addEventListener("change", () => act(async () => { if ($("file").files.length) await begin(...(await rowOf($("file").files[0]))); }));
  $("reset").addEventListener("click", () => { state.code = [...state.start]; sliders(); redraw(); });
  $("more").addEventListener("click", () => { state.all = true; sliders(); });
  act(async () => {
    state.models = (await (await ask("/v1/models")).json()).models;
    $("model").replaceChildren(...state.models.map((model) => new Option(model.name, model.name)));
    await choose(new URLSearchParams(location.search).get("model") || state.models[0].name);
  });
})();
