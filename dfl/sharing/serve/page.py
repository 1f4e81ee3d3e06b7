"""The page for people: one document, which asks the API of its own server and nothing else.

A rule that goes with it (Content-Security-Policy) forbids every other address, and every script and style but those
below, which it knows by their hashes. What comes from a file or a detector is shown as text, never as HTML.
"""

import base64
import hashlib

from dfl.evaluation import html
from dfl.evaluation.plots import FAKE, REAL

STYLE = (
    html.STYLE
    + f"""
:root {{ --real: {REAL}; --fake: {FAKE} }}
@media (prefers-color-scheme: dark) {{ :root {{ --real: #56b4e9; --fake: #f08a4b }} }}
"""
    + """
body { max-width: 960px } [hidden] { display: none !important }
#drop { display: block; border: 2px dashed var(--line); border-radius: 12px; padding: 28px; text-align: center;
  cursor: pointer; margin: 20px 0 }
#drop.over, #drop:focus-within, #drop:hover { border-color: var(--ink); background: var(--card) }
#drop input { display: block; margin: 12px auto 0; width: 260px; max-width: 100%; font: inherit }
#key { margin: 16px 0 } #key input { font: inherit; padding: 6px 10px; width: min(100%, 320px) }
button { font: inherit; padding: 6px 14px; border: 1px solid var(--line); border-radius: 8px; background: var(--card);
  color: inherit; cursor: pointer } button:disabled { cursor: wait; opacity: .6 }
#unusual { border-left: 3px solid var(--fake); padding-left: 10px }
#error { color: var(--fake); font-weight: 600 }
.pair { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 28px; align-items: start }
figure img, #picture img { width: auto; max-width: 100%; max-height: 420px; border-radius: 8px; display: block }
figcaption { white-space: normal; margin-top: 6px; color: var(--soft); font-size: 13px }
#verdict { font-size: 44px; font-weight: 700; line-height: 1.1; margin: 0 }
.real { color: var(--real) } .fake { color: var(--fake) } .unsure { color: var(--soft) }
.scale { position: relative; height: 14px; border-radius: 7px; margin: 6px 0; min-width: 120px;
  background: var(--line) }
.scale i { position: absolute; top: -4px; bottom: -4px; width: 2px; background: var(--ink) }
.scale b { position: absolute; top: 50%; width: 18px; height: 18px; margin: -9px 0 0 -9px; border-radius: 50%;
  background: var(--page); border: 4px solid var(--ink) }
.ends { display: flex; justify-content: space-between; font-size: 13px; color: var(--soft) }
td.long { white-space: normal; text-align: left } td .scale { height: 8px } td .scale b { width: 12px; height: 12px;
  margin: -6px 0 0 -6px; border-width: 3px } #changes td:nth-child(2) { width: 55% }
#where img { width: 256px } body > p:last-of-type { margin-top: 28px }
#words { white-space: pre-wrap; background: var(--card); border-radius: 8px; padding: 12px 16px }
@media (max-width: 600px) { .pair { grid-template-columns: minmax(0, 1fr); gap: 16px } #drop { padding: 18px }
  #verdict { font-size: 36px } }
"""
)

BODY = """
<h1>Real or fake?</h1>
<p class="soft" id="about">&nbsp;</p>
<form id="key" hidden><label>Key of this server: <input type="password" autocomplete="off"></label>
<button>Use</button></form>
<label id="drop">Drop an image here, paste one, or choose a file<input type="file" accept="image/*"></label>
<p id="error" role="alert" hidden></p>
<p id="busy" role="status" hidden>The detector is looking at it …</p>
<main id="answer" hidden>
<div class="pair">
<figure id="picture"><img alt="The image that was sent"><figcaption></figcaption></figure>
<div><p id="verdict" role="status"></p><div id="scale"></div>
<div class="ends"><span>0 real</span><span>fake 1</span></div>
<p id="score"></p><p class="soft" id="meaning"></p>
<p id="unusual" hidden></p>
<p class="soft">A verdict is a hint, no proof: detectors fail on generators, cameras and edits that they have never
seen.</p></div>
</div>
<section id="where" hidden><h2>Where it looks manipulated</h2><figure><img alt="The image with its map over it">
<figcaption>The redder, the more likely manipulated, as the detector saw the image.</figcaption></figure></section>
<section id="why" hidden><h2>In the detector's words</h2><p id="words"></p></section>
<section id="classes" hidden><h2>By class</h2><div class="wide"><table></table></div></section>
<section id="file" hidden><h2>What the file says of itself</h2>
<p class="soft">Not part of the score: metadata can be removed and forged.</p>
<div class="wide"><table></table></div></section>
<section><h2>What would change my mind</h2>
<p class="soft">The same image, compressed, resized or cut: a verdict that such changes turn around is a weak one.</p>
<button id="try" type="button">Try it</button><div class="wide"><table id="changes"></table></div></section>
</main>
<p class="soft">An API with the same answers: <a href="openapi.json">openapi.json</a></p>
"""

SCRIPT = """
const $ = id => document.getElementById(id), percent = x => (100 * x).toFixed(x > .1 && x < .9 ? 0 : 1) + " %";
let key = "", image = null, about = null, asked = 0;
const SAYS = { c2pa: "Signed manifest (C2PA)", c2pa_says: "which says", software: "Program",
  generator_tags: "Signs of a generator" };
const make = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const show = (id, on) => { $(id).hidden = !on; return on; };
const fail = line => { show("error", line); $("error").textContent = line || ""; };

async function call(path, options = {}) {
  const headers = key ? { Authorization: "Bearer " + key } : {};
  const reply = await fetch(path, { ...options, headers });
  const said = await reply.json().catch(() => ({ error: "no answer (" + reply.status + ")" }));
  if (reply.status == 401) { show("key", true); $("key").querySelector("input").focus(); }
  if (!reply.ok) throw new Error(said.error);
  return said;
}

function scale(score) {
  const bar = make("div", undefined, "scale"), at = (tag, x) => {
    const mark = make(tag); mark.style.left = 100 * x + "%"; bar.append(mark);
  };
  const [low, high] = (about.unsure ?? [about.threshold, about.threshold]).map(x => 100 * x + "%");
  bar.style.background =
    `linear-gradient(90deg, var(--real) ${low}, var(--line) ${low} ${high}, var(--fake) ${high})`;
  at("i", about.threshold);
  at("b", score);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", "score " + score.toFixed(3));
  return bar;
}

function rows(table, lines) {
  table.replaceChildren(...lines.map(cells => {
    const row = make("tr");
    row.append(...cells.map(cell => {
      const made = make("td", cell instanceof Node ? undefined : cell, "long");
      if (cell instanceof Node) made.append(cell);
      return made;
    }));
    return row;
  }));
}

async function open() {
  about = await call("about");
  show("key", false);
  $("about").textContent = about.detector + " · dfl " + about.version + " · " + about.device;
}

async function ask(file) {
  const mine = ++asked;
  image = file;
  fail(); show("answer", false); show("busy", true);
  $("changes").replaceChildren();
  $("try").hidden = false;
  try {
    if (!about) await open();
    if (file.size > about.max_bytes) throw new Error("more than " + about.max_bytes.toLocaleString() + " bytes");
    const said = await call("score?maps=true&metadata=true", { method: "POST", body: file });
    if (mine == asked) tell(said);
  } catch (error) { if (mine == asked) fail(error.message); }
  if (mine == asked) show("busy", false);
}

function tell(said) {
  const picture = $("picture").querySelector("img");
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.hidden = false;
  picture.onerror = () => { picture.hidden = true; };
  picture.src = URL.createObjectURL(image);
  $("picture").querySelector("figcaption").textContent =
    (image.name || "pasted image") + ", " + said.width + " × " + said.height + " pixels";
  $("verdict").textContent = said.verdict;
  $("verdict").className = said.verdict;
  $("scale").replaceChildren(scale(said.score));
  $("score").textContent = "Score " + said.score.toFixed(3) + (said.probability === undefined ? ""
    : "; calibrated: " + percent(said.probability) + " fake, where as many images are fake as in validation");
  $("meaning").textContent = "The line is the threshold: " + about.meaning + ".";
  if (show("where", said.overlay)) $("where").querySelector("img").src = "data:image/jpeg;base64," + said.overlay;
  if (show("why", said.text)) $("words").textContent = said.text;
  if (show("classes", said.classes))
    rows($("classes").querySelector("table"), Object.entries(said.classes).map(([name, p]) => [name, percent(p)]));
  if (show("file", said.metadata))
    rows($("file").querySelector("table"), Object.entries(said.metadata).map(([name, text]) => [SAYS[name], text]));
  if (show("unusual", said.unusual)) $("unusual").textContent = "Unlike the images of the training in " + said.unusual
    + ": the score is less sure than validation says.";
  show("answer", true);
}

$("try").onclick = async () => {
  const mine = asked;
  $("try").disabled = true;
  try {
    const said = await call("score?changes=true", { method: "POST", body: image });
    if (mine != asked) return;
    rows($("changes"), said.changes.map(one =>
      [one.name.replace("_", " "), scale(one.score), make("span", one.verdict, one.verdict)]));
    for (const [i, row] of [...$("changes").rows].entries()) {
      if (said.changes[i].about == said.changes[i - 1]?.about) continue;
      const head = make("tr"), cell = make("td", said.changes[i].about, "long soft");
      cell.colSpan = 3; head.append(cell); row.before(head);
    }
    $("try").hidden = true;
  } catch (error) { fail(error.message); } finally { $("try").disabled = false; }
};
$("key").onsubmit = event => {
  event.preventDefault();
  key = $("key").querySelector("input").value;
  fail();
  open().then(() => image && ask(image)).catch(error => fail(error.message));
};
const input = $("drop").querySelector("input"), take = files => { if (files?.length) ask(files[0]); };
input.onchange = () => { take(input.files); input.value = ""; };
document.ondragover = event => { event.preventDefault(); $("drop").classList.add("over"); };
document.ondragleave = () => $("drop").classList.remove("over");
document.ondrop = event => {
  event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files);
};
document.onpaste = event => take(event.clipboardData.files);
open().catch(error => fail(error.message));
"""


def _known(text: str) -> str:
    """Return how a policy names a text that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; connect-src 'self'; img-src blob: data:; style-src {_known(STYLE)}; script-src "
    f"{_known(SCRIPT)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = (
    '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Real or fake?</title><link rel="icon" href="data:,">'
    f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>{BODY}'
    f"<script>{SCRIPT}</script></html>\n"
)
