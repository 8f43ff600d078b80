"""The template of the tissue quality page."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tissue: {{ cohort }}</title>
<link rel="icon" href="data:,">
<style>
:root { --ink: #22242c; --soft: #5f6472; --line: #e3e5ec; --paper: #fff; --ground: #f6f7fa; --accent: #7a3e9d;
  --bad: #a8322d; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 12px; }
p { margin: 0 0 12px; color: var(--soft); max-width: 75ch; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 0; }
.figure { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.figure b { display: block; font-size: 26px; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); font-size: 14px; }
.figure.bad b { color: var(--bad); }
.two { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 16px; }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 16px; }
.card h3 { margin: 0 0 12px; font-size: 15px; }
.bars { display: flex; align-items: flex-end; gap: 2px; height: 150px; border-bottom: 1px solid var(--line); }
.bars i { flex: 1; background: var(--accent); border-radius: 2px 2px 0 0; min-height: 0; }
.scale { display: flex; justify-content: space-between; color: var(--soft); font-size: 13px; margin-top: 6px; }
.rows { display: grid; grid-template-columns: auto 1fr auto; gap: 8px 12px; align-items: center; font-size: 14px; }
.rows i { height: 10px; background: var(--accent); border-radius: 5px; }
.slides { display: grid; grid-template-columns: repeat(auto-fill, minmax(200px, 1fr)); gap: 14px; }
.slide { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; overflow: hidden; margin: 0; }
.slide.bad { border-color: var(--bad); }
.slide img { display: block; width: 100%; height: 190px; object-fit: contain; background: #fff;
  border-bottom: 1px solid var(--line); }
.slide figcaption { padding: 10px 12px; font-size: 13px; color: var(--soft); }
.slide strong { display: block; color: var(--ink); font-size: 14px; overflow-wrap: anywhere; }
.slide em { color: var(--bad); font-style: normal; }
.ledger { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 0 16px;
  margin: 0; list-style: none; }
.ledger li { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 4px 16px; padding: 10px 0;
  border-bottom: 1px solid var(--line); font-size: 14px; overflow-wrap: anywhere; }
.ledger li:last-child { border-bottom: 0; }
.ledger span { color: var(--bad); }
@media (max-width: 700px) {
  main { padding: 20px 14px 40px; }
  .two, .ledger li { grid-template-columns: minmax(0, 1fr); }
  .slides { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  .slide img { height: 140px; }
  .figures { grid-template-columns: repeat(2, minmax(0, 1fr)); }
}
@media print { body { background: #fff; } .slide, .card, .ledger li { break-inside: avoid; } }
</style>
</head>
<body>
<main>
<h1>Tissue of {{ cohort }}</h1>
<p>Where tiles may be drawn: outlines of the tissue masks on the slides' thumbnails, and what is left out.</p>
<div class="figures">
  <div class="figure"><b>{{ usable }}</b><span>slides in use</span></div>
  <div class="figure{{ ' bad' if quarantined }}"><b>{{ quarantined | length }}</b><span>quarantined</span></div>
  <div class="figure"><b>{{ total_mm2 }}</b><span>mm² of tissue in all</span></div>
  <div class="figure"><b>{{ median_mm2 }}</b><span>mm² in the median slide</span></div>
</div>
{% if usable %}
<h2>How much there is</h2>
<div class="two">
  <div class="card"><h3>Slides by tissue area</h3>
    <div class="bars" role="img" aria-label="Histogram of tissue area per slide">
    {% for bar in histogram %}<i style="height:{{ bar.percent }}%" title="{{ bar.label }}"></i>{% endfor %}
    </div>
    <div class="scale"><span>0 mm²</span><span>{{ largest_mm2 }} mm²</span></div>
  </div>
  <div class="card"><h3>Slides that can give tiles at</h3>
    <div class="rows">
    {% for row in mpps %}<span>{{ row.mpp }} µm/px</span><i style="width:{{ row.percent }}%"></i><b>{{ row.count }}</b>
    {% endfor %}</div>
  </div>
</div>
{% endif %}
{% if quarantined %}
<h2>Left out</h2>
<ul class="ledger">
{% for slide in quarantined %}<li><b>{{ slide.slide_id }}</b><span>{{ slide.reason }}</span></li>
{% endfor %}</ul>
{% endif %}
{% if shown %}
<h2>Masks</h2>
{% if shown | length < with_thumbnail %}<p>{{ shown | length }} of {{ with_thumbnail }} slides, evenly from the least to
the most tissue.</p>{% endif %}
<div class="slides">
{% for slide in shown %}<figure class="slide{{ ' bad' if not slide.ok }}">
  <img loading="lazy" alt="Thumbnail of {{ slide.name }} with its tissue outlined" src="{{ slide.source }}">
  <figcaption><strong>{{ slide.name }}</strong>
  {% if slide.ok %}{{ slide.area }} mm² · {{ slide.mpp }} µm/px
  {% if ';' in slide.mpp_source %}({{ slide.mpp_source }}) {% endif %}· {{ slide.size }}
  {% else %}<em>{{ slide.reason }}</em>{% endif %}</figcaption>
</figure>
{% endfor %}</div>
{% endif %}
</main>
</body>
</html>
"""
