"""Draws loss.svg from log.json: python3 plot.py"""
import json
import math
from pathlib import Path

HERE = Path(__file__).parent
WIDTH, HEIGHT, LEFT, TOP, PANEL = 720, 470, 60, 30, 170
INK, GRID, LOSS, ACCURACY = '#444', '#ddd', '#1f6feb', '#1a7f37'


def label(x, y, text, anchor='middle'):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def panel(title, points, top, low, high, ticks, color, last_step, is_log=False):
    """One curve of (step, value) with horizontal grid lines at the ticks."""
    scale = math.log if is_log else float

    def x_of(step):
        return LEFT + (WIDTH - LEFT - 20) * step / last_step

    def y_of(value):
        part = (scale(value) - scale(low)) / (scale(high) - scale(low))
        return top + PANEL * (1 - part)

    lines = [label(LEFT, top - 10, title, 'start')]
    for tick in ticks:
        lines.append(f'<path d="M{LEFT} {y_of(tick):.1f}H{WIDTH - 20}" stroke="{GRID}"/>')
        lines.append(label(LEFT - 8, y_of(tick) + 4, f'{tick:g}', 'end'))
    for step in range(0, last_step + 1, 2000):
        lines.append(label(x_of(step), top + PANEL + 18, f'{step:,}'))
    places = ' '.join(f'{x_of(step):.1f},{y_of(value):.1f}' for step, value in points)
    lines.append(f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>')
    return lines


def main():
    log = json.loads((HERE / 'log.json').read_text())
    loss = [(step, value) for step, _, value in log['curve']]
    accuracy = [(check['step'], check['accuracy'] * 100) for check in log['checks']]
    last = log['steps']
    lines = panel('Loss (log scale), by step', loss, TOP, 0.17, 3, (0.2, 0.3, 0.5, 1, 2), LOSS, last, is_log=True)
    lines += panel('Held-out tasks right, %', accuracy, TOP + PANEL + 60, 90, 100, (90, 92, 94, 96, 98, 100), ACCURACY, last)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="{INK}">'
    background = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>'
    (HERE / 'loss.svg').write_text('\n'.join([head, background, *lines, '</svg>']) + '\n')


if __name__ == '__main__':
    main()
