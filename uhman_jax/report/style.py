"""The page's style sheet: one column on phones, dark mode, no font or file from elsewhere."""

CSS = """
:root{color-scheme:light dark;
--paper:#f6f5f1;--card:#fffefb;--ink:#1b1d22;--muted:#5f6571;--line:#dfdcd2;--wash:#efede6;
--model:#4a4fd4;--model-wash:#e9e9fc;--train:#c2571a;--popularity:#9297a3;--history:#7288b4;
--attributes:#a8738c;--observable:#12877a;--oracle:#b07a0a;--hit:#0f6b3c;--hit-wash:#dcf3e4;
--warn:#8a5a00;--warn-wash:#fdf0d2;--band:rgba(74,79,212,.09)}
@media (prefers-color-scheme:dark){:root{
--paper:#14151a;--card:#1c1e25;--ink:#e9e8e3;--muted:#a0a5b1;--line:#343843;--wash:#252832;
--model:#949bff;--model-wash:#2a2d52;--train:#f0935a;--popularity:#858b99;--history:#7d94c4;
--attributes:#bd86a1;--observable:#3fc0ae;--oracle:#e0ad3d;--hit:#7fe0a8;--hit-wash:#17382a;
--warn:#f3c969;--warn-wash:#3a3016;--band:rgba(148,155,255,.13)}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:clamp(20px,5vw,56px) clamp(14px,4vw,32px) 80px}
h1{font-size:clamp(2rem,6vw,3.1rem);line-height:1.08;letter-spacing:-.025em;margin:.1em 0 .35em;
overflow-wrap:anywhere}
h2{font-size:1.5rem;letter-spacing:-.015em;line-height:1.2;margin:0 0 .4em}
h3{font-size:1.02rem;margin:0;overflow-wrap:anywhere}
h4{font-size:.8rem;margin:0 0 .5em;color:var(--muted);font-weight:600}
p{margin:0 0 1em;max-width:68ch}
a{color:var(--model)}
section.part{margin-top:clamp(44px,7vw,72px)}
.eyebrow{color:var(--muted);font-size:.85rem;font-weight:600;letter-spacing:.02em;margin:0}
.lead{font-size:clamp(1.08rem,2.6vw,1.3rem);line-height:1.5;max-width:58ch}
.quiet,.note{color:var(--muted)}
.note{font-size:.9rem}
.badges{display:flex;flex-wrap:wrap;gap:8px;margin:0 0 1.4em;padding:0;list-style:none}
.badges li{border:1px solid var(--line);background:var(--card);border-radius:99px;padding:2px 12px;
font-size:.86rem;overflow-wrap:anywhere}
.badges .simulated{background:var(--warn-wash);color:var(--warn);border-color:currentColor;
font-weight:600}
.card{background:var(--card);border:1px solid var(--line);border-radius:14px;padding:18px 20px;
margin:0 0 16px;min-width:0}
.card.stats{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:1px;padding:0;
overflow:hidden;background:var(--line)}
.stats div{padding:16px 20px;background:var(--card)}
.stats dt{color:var(--muted);font-size:.86rem}
.stats dd{margin:2px 0 0;font-size:1.75rem;font-weight:650;letter-spacing:-.02em;line-height:1.15}
.stats small,.value small{font-size:.8rem;font-weight:400;letter-spacing:0;color:var(--muted);
margin-left:.4em;white-space:nowrap}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,450px),1fr));gap:16px}
.grid{margin-bottom:16px}
.grid>.card{margin:0}
.card>p:last-child{margin-bottom:0}
.scroll+.note{margin-top:10px}
figcaption{font-weight:600;font-size:.95rem;margin-bottom:10px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 8px;text-align:left;border-top:1px solid var(--line);vertical-align:top}
thead th,thead td{border-top:0;color:var(--muted);font-weight:500;font-size:.84rem;
vertical-align:bottom}
th:first-child,td:first-child{padding-left:0}
th:last-child,td:last-child{padding-right:0}
th[scope=row]{font-weight:500}
th.number,td.number{text-align:right}
td small{display:block;color:var(--muted);font-size:.76rem;white-space:nowrap}
tr.model th,tr.model td{font-weight:700}
tr.model small{font-weight:400}
tr .system{position:relative;padding-left:17px}
.dot{position:absolute;left:0;top:.95em;width:9px;height:9px;border-radius:3px}
.dot.popularity,.popularity .fill{background:var(--popularity)}
.dot.history,.history .fill{background:var(--history)}
.dot.attributes,.attributes .fill{background:var(--attributes)}
.dot.model,.model .fill{background:var(--model)}
.dot.observable,.observable .fill{background:var(--observable)}
.dot.oracle,.oracle .fill{background:var(--oracle)}
.bars{display:grid;margin:6px 0 14px}
.bar{display:grid;grid-template-columns:150px 1fr 150px;align-items:center;column-gap:16px}
.bar.wide{grid-template-columns:310px 1fr 180px}
.value .versus{display:block;margin:0}
.bar .value{font-variant-numeric:tabular-nums;font-weight:600}
.bar.model:not(.wide) .name{font-weight:700}
.card>.bars:last-child{margin-bottom:0}
.track{position:relative;height:46px;display:block}
.track i{position:absolute;display:block}
.fill{left:0;top:14px;height:18px;border-radius:0 5px 5px 0;min-width:2px}
.band{top:0;bottom:0;background:var(--band);border:dashed var(--model);border-width:0 1px}
.whisker{top:21px;height:4px;border:solid var(--ink);border-width:0 2px;
background:linear-gradient(var(--ink),var(--ink)) center/100% 2px no-repeat}
.whisker::before{content:"";position:absolute;inset:-5px -2px;border:solid var(--ink);
border-width:0 2px}
.seed{top:33px;width:7px;height:7px;margin-left:-3.5px;border-radius:50%;background:var(--model);
border:1px solid var(--card)}
.tick{top:8px;bottom:8px;width:0;border-left:2px dashed var(--ink)}
.wide .track{background:linear-gradient(var(--wash),var(--wash)) center/100% 18px no-repeat}
.minitrack{height:5px;border-radius:3px;background:var(--wash);margin-top:4px;min-width:52px}
.mini{display:block;height:100%;border-radius:3px;background:var(--model)}
.slices td:not(.number){min-width:84px}
svg.plot{display:block;width:100%;height:auto;stroke-linejoin:round;stroke-linecap:butt}
details>summary{cursor:pointer;font-weight:600}
details[open]>summary{margin-bottom:12px}
.glossary dt{font-weight:600;margin-top:10px}
.glossary dd{margin:0;color:var(--muted);max-width:72ch}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));
gap:0 28px;margin:0}
.facts div{display:flex;justify-content:space-between;gap:14px;border-top:1px solid var(--line);
padding:6px 0;font-size:.92rem}
.facts dt{color:var(--muted)}
.facts dd{margin:0;font-variant-numeric:tabular-nums;text-align:right;overflow-wrap:anywhere}
.legend{display:flex;flex-wrap:wrap;gap:8px 22px;align-items:center;font-size:.9rem;
margin-bottom:16px}
.ramp{display:inline-block;width:86px;height:11px;border-radius:6px;vertical-align:-1px;
margin:0 6px;border:1px solid var(--line);
background:linear-gradient(90deg,rgba(84,20,120,.1),#c82c6e,#fa7828,#ffeb78)}
.switch{display:inline-flex;gap:8px;align-items:center;cursor:pointer}
.switch input{width:18px;height:18px;accent-color:var(--model);margin:0}
.frame .shot{filter:saturate(.7) brightness(.88)}
body:has(#heat:not(:checked)) .heat{visibility:hidden}
body:has(#heat:not(:checked)) .shot{filter:none}
.clip>header{display:flex;flex-wrap:wrap;justify-content:space-between;gap:2px 20px;
align-items:baseline;margin-bottom:12px}
.clip .score{margin:0;color:var(--muted);font-size:.92rem}
.clip .score b{color:var(--ink)}
.placeholder{border:1px dashed var(--muted);border-radius:10px;background:var(--wash);
padding:12px 16px;font-size:.92rem;max-width:none;overflow-wrap:anywhere}
.strip{display:flex;gap:6px;overflow-x:auto;padding-bottom:10px;margin:0 -20px 14px;
padding-inline:20px;scrollbar-width:thin;overscroll-behavior-x:contain}
.strip:focus-visible{outline:2px solid var(--model);outline-offset:-2px;border-radius:8px}
.frame{flex:1 0 84px;max-width:140px}
.frame.wide{flex-basis:124px}
.picture{position:relative;border-radius:8px;overflow:hidden;background:#0c0d10;line-height:0}
.picture img{width:100%;height:auto;display:block}
.picture .heat{position:absolute;inset:0;height:100%}
.picture .map{image-rendering:pixelated;aspect-ratio:1}
.weight{position:relative;height:38px;margin-top:5px;border-bottom:1px solid var(--line)}
.weight i{position:absolute;left:14%;right:14%;bottom:0;background:var(--model);
border-radius:4px 4px 0 0}
.weight s{position:absolute;left:0;right:0;border-top:1px dashed var(--muted)}
.when{font-size:.76rem;color:var(--muted);text-align:center;line-height:1.3;margin-top:4px;
font-variant-numeric:tabular-nums;white-space:nowrap}
.when b{color:var(--ink)}
.profile{display:flex;flex-wrap:wrap;gap:6px 26px;margin:0 0 16px;font-size:.92rem}
.profile div{display:flex;gap:8px;min-width:0}
.profile dt{color:var(--muted);flex:none}
.profile dd{margin:0;min-width:0}
.tags{display:grid;grid-template-columns:2fr 3fr;gap:16px 28px}
.chips{display:flex;flex-wrap:wrap;gap:6px;margin:0;padding:0;list-style:none;min-width:0}
.tags ol{gap:6px 14px}
.chips li{display:inline-flex;align-items:baseline;gap:5px;min-width:0}
.tag{border:1px dashed var(--muted);border-radius:8px;padding:1px 8px;font-size:.9rem;min-width:0;
overflow-wrap:anywhere}
.profile .tag{border:0;background:var(--wash);padding:0 7px;font-size:.86rem}
.tag.hit{border:2px solid var(--hit);background:var(--hit-wash);color:var(--hit);font-weight:650;
padding:0 7px}
.tag small{margin-left:6px;color:var(--muted);font-weight:400;white-space:nowrap}
.tag.hit small{color:inherit}
.place{font-size:.78rem;color:var(--muted);font-variant-numeric:tabular-nums}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
@media (max-width:720px){
.bar,.bar.wide{grid-template-columns:1fr auto;row-gap:0}
.bar .track{grid-column:1/-1;order:3;height:34px}
.bar .fill{top:4px}.bar .whisker{top:11px}.bar .seed{top:23px}.bar .tick{top:0;bottom:6px}
.wide .track{background-position:0 4px}
.tags{grid-template-columns:1fr}
.card{padding:15px 14px}
.strip{margin-inline:-14px;padding-inline:14px}
.bar.wide{grid-template-columns:1fr;padding:4px 0}
.bar.wide .track{order:0}
.card.stats{grid-template-columns:1fr 1fr;padding:0}
.stats div:last-child:nth-child(odd){grid-column:1/-1}
.stats div{padding:12px 14px}.stats dd{font-size:1.45rem}
.stats dd small{display:block;margin:0}
table{font-size:.8rem}th,td{padding:6px 3px}td small{font-size:.66rem}
.slices td:not(.number){min-width:64px}
.profile .wide{flex:1 0 100%}
}
@media (max-width:400px){table{font-size:.75rem;letter-spacing:-.015em}}
@media print{body{background:#fff}.card{break-inside:avoid}}
"""
