"""The looks of the page: one stylesheet, light and dark by the reader's setting, no fonts or images from elsewhere."""

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --surface: #ffffff; --ink: #16191f; --soft: #596070; --line: #dde1e8;
  --heat: #1640c0; --on-heat: #ffffff; --miss: #d9480f; --on-miss: #ffffff;
  --good: #12803c; --part: #a15c00; --bad: #c02626;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #101216; --surface: #191c22; --ink: #e8eaef; --soft: #9aa3b2; --line: #2d323c;
    --heat: #9cbcff; --on-heat: #0b1020; --miss: #ff9457; --on-miss: #1c0d02;
    --good: #4ecb7c; --part: #e5a84b; --bad: #ff7b72;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 19px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 0 0 6px; }
table + h3 { margin-top: 16px; }
p { margin: 0 0 10px; max-width: 78ch; }
.soft, caption, .hint { color: var(--soft); }
.hint { font-size: 13.5px; }
section { background: var(--surface); border: 1px solid var(--line); border-radius: 12px; padding: 18px 20px;
  margin-top: 16px; overflow-x: auto; }
header { border-left: 8px solid var(--tone); padding: 4px 0 4px 18px; }
header .asked { color: var(--soft); margin: 0; }
header h1 { color: var(--tone); }
.yes { --tone: var(--good); } .partly { --tone: var(--part); } .no { --tone: var(--bad); }
.unknown { --tone: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 16px; margin-top: 16px; }
.tile { background: var(--surface); border: 1px solid var(--line); border-radius: 12px; padding: 14px 18px; }
.tile b { display: block; font-size: 30px; line-height: 1.15; font-variant-numeric: tabular-nums; }
.tile b small { font-size: 14px; font-weight: 400; color: var(--soft); margin-left: 10px; }
.tile p { margin: 6px 0 0; font-size: 13.5px; color: var(--soft); }
.scale { position: relative; height: 26px; margin: 8px 0 2px; }
.scale i { position: absolute; top: 4px; height: 8px; border-radius: 4px; }
.scale .rail { left: 0; right: 0; background: var(--line); }
.scale .range { background: var(--heat); opacity: .45; min-width: 3px; }
.scale .value { width: 4px; margin-left: -2px; background: var(--heat); top: 1px; height: 14px; }
.scale .mark { width: 1px; background: var(--soft); top: 0; height: 15px; border-radius: 0; }
.scale span { position: absolute; top: 14px; font-size: 11px; line-height: 12px; color: var(--soft);
  transform: translateX(-50%); white-space: nowrap; }
.scale span.first { transform: none; } .scale span.last { transform: translateX(-100%); }
table { border-collapse: separate; border-spacing: 3px; font-variant-numeric: tabular-nums; }
th { font-weight: 600; text-align: left; padding: 4px 8px; vertical-align: bottom; }
th small, td small { display: block; font-weight: 400; color: inherit; opacity: .82; font-size: 12px; }
th small { color: var(--soft); opacity: 1; max-width: 34ch; }
td { padding: 6px 10px; border-radius: 6px; }
tbody th { vertical-align: middle; }
.heat td.says { text-align: left; font-size: 14px; min-width: 200px; padding-left: 16px; }
.heat td { min-width: 104px; text-align: center; font-size: 17px; }
td.shade { background: color-mix(in oklab, var(--heat) calc(var(--v) * 100%), var(--surface)); }
td.error { background: color-mix(in oklab, var(--miss) calc(var(--v) * 100%), var(--surface)); }
td.strong { color: var(--on-heat); } td.error.strong { color: var(--on-miss); }
td.own { outline: 3px solid var(--ink); outline-offset: 0; }
tr.gap td, tr.gap th { padding: 4px 8px 0; font-size: 13px; font-weight: 400; color: var(--soft); text-align: left; }
.legend { display: flex; align-items: center; gap: 8px; font-size: 13px; color: var(--soft); margin: 10px 0 0;
  flex-wrap: wrap; }
.legend .bar { width: 160px; height: 12px; border-radius: 4px;
  background: linear-gradient(in oklab to right, var(--surface), var(--heat)); border: 1px solid var(--line); }
.legend .box { width: 22px; height: 14px; border-radius: 4px; border: 3px solid var(--ink); margin-left: 14px; }
.plain { border-spacing: 0; } .plain td, .plain th { border-bottom: 1px solid var(--line); border-radius: 0; }
.plain td.number, .plain th.number { text-align: right; }
.cards { display: flex; flex-wrap: wrap; gap: 26px; }
.confusion { border-spacing: 2px; font-size: 12.5px; }
.confusion td { min-width: 26px; height: 24px; padding: 2px 4px; text-align: center; border-radius: 4px; }
.confusion th { font-weight: 400; padding: 2px 6px; white-space: nowrap; max-width: 190px; overflow: hidden;
  text-overflow: ellipsis; }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: 4px 2px; max-height: 170px;
  text-align: left; vertical-align: bottom; }
details { border-top: 1px solid var(--line); padding: 10px 0; }
details:first-of-type { border-top: 0; }
summary { cursor: pointer; }
blockquote { margin: 8px 0 10px; padding: 8px 12px; background: var(--ground); border-radius: 8px; max-width: 90ch;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.near { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 16px; }
.near ol { margin: 0; padding-left: 22px; } .near li { margin-bottom: 6px; font-size: 13.5px; overflow-wrap: anywhere; }
.chip { display: inline-block; font-size: 12px; line-height: 18px; padding: 0 8px; border-radius: 9px;
  border: 1px solid currentColor; margin-right: 6px; white-space: nowrap; }
.right { color: var(--good); } .wrong { color: var(--bad); }
ul { margin: 0; padding-left: 20px; } li { margin-bottom: 4px; max-width: 100ch; overflow-wrap: anywhere; }
dl { margin: 0; } dt { font-weight: 600; margin-top: 8px; } dd { margin: 0; max-width: 90ch; color: var(--soft); }
@media print { section, .tile { break-inside: avoid; } }
"""
