"""Holds the markup, style and script of the quiz's page, which `quiz.write_quiz` fills in."""

from __future__ import annotations

from html import escape

from jaxgen.report.page import HEAD, POLICY
from jaxgen.report.style import CSS


def render(title: str, data: str, pairs: int, limit_ms: int) -> str:
    """Returns the page as HTML.

    Args:
      title: one line about the model, as plain text.
      data: the questions, as JSON for the script.
      pairs: how many pairs are shown, for the introduction.
      limit_ms: milliseconds for which a pair is shown, for the introduction; 0 is no limit.
    """
    limit = f"<p>Each pair is shown for {limit_ms:,} ms and then covered; you may take your time to choose.</p>"
    return PAGE.format(
        policy=POLICY,
        named=escape(f" · {title}" if title else ""),
        style=CSS + QUIZ_CSS,
        summary=f'<p class="summary">{escape(title)}</p>' if title else "",
        several="One pair" if pairs == 1 else f"{pairs} pairs",
        limit=limit if limit_ms else "",
        pairs=pairs,
        data=data.replace("<", "\\u003c"),  # so that no text in the JSON can end the script element
        script=QUIZ_SCRIPT,
    )


# `str.format` fills this text; each name in braces is a field.
PAGE = (
    HEAD
    + """<title>Which image is real?{named} · jaxgen</title>
<style>{style}</style>
</head>
<body>
<header>
<p class="kicker">jaxgen: a quiz for people</p>
<h1>Which image is real?</h1>
{summary}
</header>
<main>
<noscript><p class="notice">This quiz needs JavaScript, which is switched off here.</p></noscript>
<section id="start">
<p>{several} of images will be shown. In each pair, one image comes from data that the model has never seen, and the
other was made by the model. Choose the image that you think is real: click or touch it, or press the left or right
arrow key. If you cannot tell, guess.</p>
{limit}
<p>The result comes at the end. Nothing leaves this page: you may save your answers as a file.</p>
<p><button type="button" id="begin" class="act">Start</button></p>
</section>
<section id="ask" aria-label="Question" hidden>
<p class="status"><span id="count" role="status"></span> <span id="verdict" role="status"></span></p>
<progress id="progress" max="{pairs}" value="0" aria-label="Pairs answered"></progress>
<div class="duel">
<button type="button" id="a" aria-label="Image A is real"><img alt="Image A"><span>A is real</span></button>
<button type="button" id="b" aria-label="Image B is real"><img alt="Image B"><span>B is real</span></button>
</div>
<p class="help">Click or touch the real one, or press ← for A, → for B.</p>
</section>
<section id="result" aria-labelledby="heading" hidden>
<h2 id="heading" tabindex="-1">Result</h2>
<div class="facts">
<div class="fact main"><b id="rate"></b><span>fool rate</span><small id="interval"></small></div>
<div class="fact"><b id="fooled"></b><span>generated images taken for real</span></div>
<div class="fact"><b id="median"></b><span>median time for a choice</span></div>
</div>
<p id="meaning"></p>
<p><a id="save" class="act">Save the answers</a></p>
<p class="help">To pool the files of several people, run <code>python -m jaxgen.report.quiz FILES</code></p>
<h2>Answers</h2>
<table><thead><tr><th scope="col">Pair</th><th scope="col">Real</th><th scope="col">Generated</th>
<th scope="col">You</th><th scope="col">Time</th></tr></thead><tbody id="answers"></tbody></table>
<h2>Model</h2>
<table><tbody id="details"></tbody></table>
</section>
</main>
<script type="application/json" id="quiz">{data}</script>
<script>{script}</script>
</body>
</html>
"""
)

QUIZ_CSS = """
.act { display: inline-block; font: inherit; font-weight: 600; padding: .6rem 1.5rem; border: 0;
  border-radius: .5rem; background: var(--accent); color: var(--page); cursor: pointer; text-decoration: none; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
#heading:focus { outline: none; }
.status { display: flex; justify-content: space-between; max-width: none; margin: 1.25rem 0 .25rem;
  font-variant-numeric: tabular-nums; }
progress { width: 100%; accent-color: var(--accent); margin-bottom: .75rem; }
.duel { display: grid; grid-template-columns: 1fr 1fr; gap: .75rem; touch-action: manipulation; }
.duel button { min-width: 0; padding: .75rem; border: 2px solid var(--rule); border-radius: .5rem;
  background: var(--card); color: inherit; font: inherit; cursor: pointer; user-select: none;
  -webkit-user-select: none; -webkit-touch-callout: none; -webkit-tap-highlight-color: transparent; }
.duel img { margin: 0 auto .5rem; max-width: none; border-radius: 0; pointer-events: none; }
.duel .covered img { visibility: hidden; }
.enlarged { image-rendering: pixelated; }
#answers img { border-radius: 0; }
#answers .fooled { font-weight: 650; color: var(--warn); }
#details th { width: 40%; }
@media (hover: hover) { .duel button:hover { border-color: var(--accent); } }
@media (max-width: 44rem) { .duel { gap: .5rem; } .duel button { padding: .5rem; } }
@media (max-width: 44rem) and (orientation: portrait) { .duel.large { grid-template-columns: 1fr; } }
@media print { #save { display: none; } }
"""

QUIZ_SCRIPT = """
"use strict";
const quiz = JSON.parse(document.getElementById("quiz").textContent);
const $ = (id) => document.getElementById(id);
const sides = [$("a"), $("b")], total = quiz.pairs.length;
const TOO_FAST = 100;  // ms; a click that comes sooner is no choice
const PAUSE = 500;  // ms of blank before a pair that is shown briefly
const answers = [];
let shown = null, cover = 0, started = "";

const source = (name) => "data:image/png;base64," + quiz.pictures[name];
const realSide = (i) => (parseInt(quiz.pad[i], 16) ^ parseInt(quiz.sealed[i], 16)) & 1 ? "a" : "b";
const hide = (yes) => sides.forEach((side) => side.classList.toggle("covered", yes));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const seconds = (ms) => (ms / 1000).toFixed(ms < 9950 ? 1 : 0) + " s";

function enlarge(image, room, largest) {  // magnifies by a whole number; reduces an image that is larger than its room
  const ratio = Math.min(room[0] / quiz.width, room[1] / quiz.height);
  const wanted = Math.max(1, Math.floor(largest / Math.max(quiz.width, quiz.height)));
  const scale = ratio < 1 ? ratio : Math.min(Math.floor(ratio), wanted);
  image.style.width = quiz.width * scale + "px";
  image.style.height = quiz.height * scale + "px";
  image.classList.toggle("enlarged", scale > 1);
}

function fit() {
  const stacked = getComputedStyle($("a").parentNode).gridTemplateColumns.split(" ").length === 1;
  const style = getComputedStyle($("a")), inner = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  const room = [$("a").clientWidth - inner, innerHeight * (stacked ? 0.36 : 0.62)];
  for (const side of sides) enlarge(side.querySelector("img"), room, 384);
}

async function show() {
  const names = quiz.pairs[answers.length];
  $("count").textContent = `Pair ${answers.length + 1} of ${total}`;
  $("progress").value = answers.length;
  hide(true);
  await Promise.all(sides.map((side, i) => {
    const image = side.querySelector("img");
    image.src = source(names[i]);
    return image.decode();
  }));
  fit();
  if (quiz.limit_ms) await wait(PAUSE);
  hide(false);
  shown = performance.now();
  if (quiz.limit_ms) cover = setTimeout(() => hide(true), quiz.limit_ms);
}

function choose(side) {
  if (shown === null || performance.now() - shown < TOO_FAST) return;
  const i = answers.length, [a, b] = quiz.pairs[i], real = realSide(i);
  answers.push({ a, b, chosen: side, real, ms: Math.round(performance.now() - shown) });
  shown = null;
  clearTimeout(cover);
  if (quiz.feedback) $("verdict").textContent = side === real ? "Right" : "No, that one was generated";
  if (answers.length < total) show(); else finish();
}

function wilson(k, n) {
  const z = 1.959963984540054, share = k / n, spread = z * z / n;
  const centre = (share + spread / 2) / (1 + spread);
  const half = Math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread);
  return [k === 0 ? 0 : Math.max(0, centre - half), k === n ? 1 : Math.min(1, centre + half)];
}

function median(values) {
  const sorted = [...values].sort((x, y) => x - y), half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

function row(...cells) {
  const line = document.createElement("tr");
  for (const content of cells) {
    const cell = document.createElement(cells[0] === content ? "th" : "td");
    cell.append(content);
    line.append(cell);
  }
  line.firstChild.scope = "row";
  return line;
}

function thumbnail(name, alt) {
  const image = new Image();
  image.src = source(name);
  image.alt = alt;
  image.title = name;
  enlarge(image, [80, 80], 80);
  return image;
}

function finish() {
  const wrong = answers.filter((one) => one.chosen !== one.real).length;
  const [low, high] = wilson(wrong, total), middle = median(answers.map((one) => one.ms));
  const percent = (share) => (100 * share).toFixed(0) + " %";
  $("rate").textContent = percent(wrong / total);
  $("interval").textContent = `95 % interval ${percent(low)} to ${percent(high)}; chance is 50 %`;
  $("fooled").textContent = `${wrong} of ${total}`;
  $("median").textContent = seconds(middle);
  $("meaning").textContent = high < 0.5 ? "You told real images from generated ones more often than by chance."
    : low > 0.5 ? "You took generated images for real more often than the real ones."
    : "These answers do not show that you can tell real images from generated ones.";
  $("answers").replaceChildren(...answers.map((one, i) => {
    const fake = one.real === "a" ? one.b : one.a, fooled = one.chosen !== one.real;
    const verdict = document.createElement("span");
    verdict.textContent = fooled ? "fooled" : "right";
    verdict.className = verdict.textContent;
    const pictures = [thumbnail(one[one.real], "The real image"), thumbnail(fake, "The generated image")];
    return row(String(i + 1), ...pictures, verdict, seconds(one.ms));
  }));
  const text = (value) => typeof value === "string" ? value : JSON.stringify(value);
  $("details").replaceChildren(...Object.entries({ ...quiz.details, "order of the quiz": `seed ${quiz.seed}` })
    .map(([key, value]) => row(key, text(value))));
  const finished = new Date().toISOString();
  const { format, title, details, seed, digest, limit_ms, feedback } = quiz;
  const file = {
    format, quiz: { title, details, seed, digest, limit_ms, feedback, pairs: total }, started, finished, answers,
    summary: { fooled: wrong, pairs: total, fool_rate: wrong / total, interval_95: [low, high], median_ms: middle },
  };
  $("save").href = "data:application/json;charset=utf-8," + encodeURIComponent(JSON.stringify(file, null, 1) + "\\n");
  $("save").download = `quiz-${digest.slice(0, 6)}-${finished.slice(0, 19).replace(/[:T]/g, "-")}.json`;
  $("ask").hidden = true;
  $("result").hidden = false;
  $("heading").focus();
}

$("begin").addEventListener("click", () => {
  started = new Date().toISOString();
  $("start").hidden = true;
  $("ask").hidden = false;
  sides[0].parentNode.classList.toggle("large", Math.max(quiz.width, quiz.height) > 160);
  show();
});
sides.forEach((side) => side.addEventListener("click", () => choose(side.id)));
addEventListener("keydown", (event) => {
  const side = { ArrowLeft: "a", ArrowRight: "b" }[event.key];
  if (!side || event.repeat || event.altKey || event.ctrlKey || event.metaKey || $("ask").hidden) return;
  event.preventDefault();
  choose(side);
});
addEventListener("resize", fit);
"""
