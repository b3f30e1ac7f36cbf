"""How a page looks: light or dark as the reader's system is, one column on a phone, in print without what folds."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root{color-scheme:light dark;--back:#fff;--card:#f6f8fa;--text:#1a1f24;--soft:#545d68;--edge:#d0d7de;--grid:#e3e8ed;
--link:#0a58b0;--focus:#0a58b0;--good:#1a7f37;--bad:#c5221f;--warn:#8f5b00;--unknown:#cfd6dd;--rest:#dcd3f3;
--c0:#0a62c4;--c1:#b3460b;--c2:#1a7a3c;--c3:#7c3aa8;--c4:#b01256;--c5:#5f6b00}
@media (prefers-color-scheme:dark){:root{--back:#0f1419;--card:#171d24;--text:#e6eaee;--soft:#a3aeb9;--edge:#3a444e;
--grid:#28313a;--link:#7bb8ff;--focus:#7bb8ff;--good:#57c972;--bad:#ff8078;--warn:#e8ae4a;--unknown:#39434d;
--rest:#3d3560;--c0:#6cb2ff;--c1:#ffa067;--c2:#5fd38a;--c3:#d0a0ff;--c4:#ff8fb3;--c5:#cbd65a}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:16px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main,header,footer,nav{max-width:72rem;margin:0 auto;padding:0 1rem}
h1{font-size:1.6rem;line-height:1.2;margin:1.2rem 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.2rem 0 .6rem;padding-top:.6rem;border-top:1px solid var(--edge)}
h3{font-size:1rem;margin:1.2rem 0 .3rem;overflow-wrap:anywhere}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:3px solid var(--focus);outline-offset:2px}
p{margin:.4rem 0;max-width:70ch;overflow-wrap:anywhere}
.soft{color:var(--soft);font-size:.875rem}
.skip{position:absolute;left:-999rem}.skip:focus{position:static}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;padding:0;margin:.6rem 0}
.phase{display:inline-block;padding:0 .6rem;border:2px solid;border-radius:1rem;font-size:1rem;vertical-align:middle}
.phase.good{color:var(--good)}.phase.bad{color:var(--bad)}.phase.warn{color:var(--warn)}
dl.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:.6rem;margin:1rem 0}
dl.facts div{background:var(--card);border:1px solid var(--edge);border-radius:.4rem;padding:.4rem .7rem;min-width:0}
dt{color:var(--soft);font-size:.8rem}dd{margin:0;font-size:1.15rem;font-variant-numeric:tabular-nums;
overflow-wrap:anywhere}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(28rem,100%),1fr));gap:0 2rem}
section,figure{min-width:0}figure{margin:0 0 1rem}
.plot{display:grid;grid-template-columns:3.6rem minmax(0,1fr);grid-template-rows:12rem 1.6rem}
.plot.low{grid-template-rows:8rem 1.6rem}
.canvas{position:relative}
svg{display:block;width:100%;height:100%;overflow:visible}
svg.bar{height:1.4rem;margin:.2rem 0}
.ys,.xs{position:relative;color:var(--soft);font-size:.75rem;font-variant-numeric:tabular-nums}
.xs{grid-column:2}
.y{position:absolute;right:.5rem;transform:translateY(50%);white-space:nowrap}
.x{position:absolute;top:.3rem;transform:translateX(-50%);white-space:nowrap}
.x.first{transform:none}.x.last{transform:translateX(-100%)}
path,rect{vector-effect:non-scaling-stroke}
.grid{stroke:var(--grid);fill:none}
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.dashed{stroke-dasharray:6 4}
.band{stroke:none;opacity:.25}
.c0{stroke:var(--c0);--of:var(--c0)}.c1{stroke:var(--c1);--of:var(--c1)}.c2{stroke:var(--c2);--of:var(--c2)}
.c3{stroke:var(--c3);--of:var(--c3)}.c4{stroke:var(--c4);--of:var(--c4)}.c5{stroke:var(--c5);--of:var(--c5)}
.band{fill:var(--of)}
rect.span{fill:var(--unknown)}rect.span.suspended{fill:var(--rest)}rect.span.before{fill:var(--grid)}
.mark{fill:none;stroke-width:2}
.mark.failure{stroke:var(--bad)}.mark.departure{stroke:var(--warn);stroke-dasharray:7 4}
.mark.coordinator{stroke:var(--c3);stroke-dasharray:2 4}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem;list-style:none;padding:0;margin:.2rem 0 .2rem 3.6rem;
font-size:.8rem}
.legend.all,figure>.legend.all{margin-left:0}
.legend li{overflow-wrap:anywhere;min-width:0}
.key{display:inline-block;width:1.2rem;height:.7rem;vertical-align:baseline}
.key.line{height:0;border-top:3px solid var(--of);margin-bottom:.25rem}
.key.band{background:var(--of)}
.key.span{background:var(--unknown)}.key.span.suspended{background:var(--rest)}
.key.span.before{background:var(--grid)}
.key.mark{width:0;height:.9rem;margin:0 .4rem;border-left:3px solid var(--bad);vertical-align:-.1rem}
.key.mark.departure{border-left:3px dashed var(--warn)}.key.mark.coordinator{border-left:3px dotted var(--c3)}
.piece{stroke:var(--back);stroke-width:1}
.productive,.first_step{fill:var(--c2)}.data,.detected{fill:var(--c1)}.snapshot{fill:var(--c3)}
.waiting{fill:var(--c5)}
.redone{fill:var(--c4)}.recovering{fill:var(--bad)}.resizing,.copied{fill:var(--c0)}.formed{fill:var(--c3)}
.queued,.starting,.forming{fill:var(--warn)}.piece.suspended{fill:var(--c3);opacity:.6}.other{fill:var(--soft)}
.swatch{display:inline-block;width:.9rem;height:.9rem;vertical-align:-.1rem;margin-right:.4rem}
.scroll{overflow-x:auto;max-width:100%;margin:.3rem 0}
table{border-collapse:collapse;font-size:.875rem;min-width:100%}
caption{text-align:left;color:var(--soft);padding:.2rem 0}
th,td{text-align:left;vertical-align:top;padding:.25rem .7rem .25rem 0;border-bottom:1px solid var(--grid)}
tbody th{font-weight:500}thead th{color:var(--soft);font-weight:600;white-space:nowrap}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
td,tbody th{overflow-wrap:break-word}.named{white-space:nowrap}
td:not(.number){min-width:5.5rem;max-width:40rem}tbody th{max-width:16rem}
summary{cursor:pointer;color:var(--link);font-size:.875rem;width:fit-content}
pre{background:var(--card);border:1px solid var(--edge);border-radius:.4rem;padding:.6rem;overflow-x:auto;
font-size:.8rem;white-space:pre-wrap;overflow-wrap:anywhere}
footer{margin-top:2.5rem;padding-bottom:2rem;color:var(--soft);font-size:.875rem}
@media (max-width:30rem){.plot{grid-template-columns:2.9rem minmax(0,1fr);grid-template-rows:9rem 1.6rem}
.legend{margin-left:0}
body{font-size:15px}dl.facts{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media print{nav,.skip{display:none}h2{break-after:avoid}figure{break-inside:avoid}}
@media (forced-colors:active){.band{opacity:.4}}
"""
