"""The report's style sheet."""

SHEET = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1f2328; background: #fff; max-width: 1100px;
  margin: 24px auto; padding: 0 16px }
h1 { font-size: 22px; line-height: 1.25; margin: 0 0 4px }
h2 { font-size: 17px; margin: 30px 0 8px }
.muted { color: #59636e }
.answer, .warn { padding: 8px 14px; margin: 14px 0 }
.answer { background: #f6f8fa; border-left: 4px solid #0969da; font-size: 16px }
.answer p { margin: 4px 0 }
.warn { background: #fff8e5; border-left: 4px solid #bf8700 }
ul { padding-left: 20px }
.warn ul { margin: 4px 0 }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 470px), 1fr)); gap: 22px;
  align-items: start }
figure { margin: 0 }
svg { width: 100%; max-width: 620px; height: auto }
details { margin: 18px 0 }
summary { cursor: pointer }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums }
td, th { border-bottom: 1px solid #d1d9e0; padding: 4px 8px 4px 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; white-space: nowrap }
tr.gap td { border-top: 3px solid #d1d9e0 }
tr.best td { font-weight: 600; background: #eaf6ec }
tr.surely td { background: #fdecea }
tr.surely td:last-child { color: #b3121d; font-weight: 600 }
tr.maybe td { background: #fff8e5 }
code, pre { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace }
pre { background: #f6f8fa; padding: 10px 14px; white-space: pre-wrap; overflow-wrap: anywhere }
.ids code { white-space: nowrap }
@media (max-width: 780px) { table { font-size: 12px } td, th { padding-right: 6px } }
"""
