//! Places a graph on a plane, from left to right: a column for each step from the sources, few crossings, short links.

use crate::drawing::Drawing;

/// A point of the plane, in pixels.
pub type Point = (f64, f64);

/// Where everything is drawn.
#[derive(Debug)]
pub struct Layout {
    /// Width and height of the whole.
    pub size: Point,
    /// The middle of each node.
    pub nodes: Vec<Point>,
    /// The width of each node.
    pub widths: Vec<f64>,
    /// For each link, the points it passes, its ends included.
    pub links: Vec<Vec<Point>>,
}

/// The height of a node.
pub const HEIGHT: f64 = 44.0;
const MARGIN: f64 = 24.0;
const COLUMN_GAP: f64 = 96.0;
const ROW_GAP: f64 = 22.0;
/// The height a passing link takes.
const LANE: f64 = 14.0;
/// Times the order within columns and the heights are improved.
const SWEEPS: usize = 12;

/// Something in a column: a node, or the place where a long link passes.
struct Cell {
    column: usize,
    height: f64,
    y: f64,
    left: Vec<usize>,
    right: Vec<usize>,
}

impl Layout {
    /// Lays out a drawing; `width` is the width of a node.
    pub fn new(drawing: &Drawing, width: impl Fn(usize) -> f64) -> Self {
        let columns = columns(drawing);
        let widths: Vec<f64> = (0..drawing.nodes.len()).map(width).collect();
        let cell = |column, height| Cell { column, height, y: 0.0, left: Vec::new(), right: Vec::new() };
        let mut cells: Vec<Cell> = columns.iter().map(|column| cell(*column, HEIGHT)).collect();
        let mut paths = Vec::with_capacity(drawing.links.len());
        for link in &drawing.links {
            let mut path = vec![link.from];
            for column in columns[link.from] + 1..columns[link.to] {
                path.push(cells.len());
                cells.push(cell(column, LANE));
            }
            path.push(link.to);
            for pair in path.windows(2) {
                cells[pair[0]].right.push(pair[1]);
                cells[pair[1]].left.push(pair[0]);
            }
            paths.push(path);
        }
        let mut grid = vec![Vec::new(); columns.iter().max().map_or(0, |last| last + 1)];
        for (i, cell) in cells.iter().enumerate() {
            grid[cell.column].push(i);
        }
        place(&mut cells, &mut grid);
        Self::drawn(&cells, &columns, widths, &paths)
    }

    fn drawn(cells: &[Cell], columns: &[usize], widths: Vec<f64>, paths: &[Vec<usize>]) -> Self {
        let count = columns.iter().max().map_or(0, |last| last + 1);
        let mut column_widths = vec![0.0_f64; count];
        for (column, width) in columns.iter().zip(&widths) {
            column_widths[*column] = column_widths[*column].max(*width);
        }
        let mut x = MARGIN;
        let middles: Vec<f64> = column_widths
            .iter()
            .map(|width| {
                x += width + COLUMN_GAP;
                x - COLUMN_GAP - width / 2.0
            })
            .collect();
        let top = cells.iter().map(|cell| cell.y - cell.height / 2.0).fold(f64::INFINITY, f64::min);
        let bottom = cells.iter().map(|cell| cell.y + cell.height / 2.0).fold(f64::NEG_INFINITY, f64::max);
        let at = |i: usize| (middles[cells[i].column], cells[i].y - top + MARGIN);
        let links = paths.iter().map(|path| {
            let mut points = Vec::new();
            for (step, &i) in path.iter().enumerate() {
                let (x, y) = at(i);
                let half = widths.get(i).map_or(column_widths[cells[i].column], |width| *width) / 2.0;
                // A node is left at its right side and reached at its left; a passing link crosses its column.
                if step > 0 {
                    points.push((x - half, y));
                }
                if step + 1 < path.len() {
                    points.push((x + half, y));
                }
            }
            points
        });
        let links = links.collect();
        let nodes = (0..columns.len()).map(at).collect();
        let height = if cells.is_empty() { 0.0 } else { bottom - top };
        Self { size: (x - COLUMN_GAP + MARGIN, height + 2.0 * MARGIN), nodes, widths, links }
    }
}

/// The column of each node: as far right as its consumers allow, so that a source stands beside what uses it first.
fn columns(drawing: &Drawing) -> Vec<usize> {
    let count = drawing.nodes.len();
    let mut consumers = vec![Vec::new(); count];
    let mut missing = vec![0; count];
    for link in &drawing.links {
        consumers[link.from].push(link.to);
        missing[link.to] += 1;
    }
    let mut order: Vec<usize> = (0..count).filter(|node| missing[*node] == 0).collect();
    let mut column = vec![0; count];
    let mut next = 0;
    while let Some(&node) = order.get(next) {
        next += 1;
        for &consumer in &consumers[node] {
            column[consumer] = column[consumer].max(column[node] + 1);
            missing[consumer] -= 1;
            if missing[consumer] == 0 {
                order.push(consumer);
            }
        }
    }
    for &node in order.iter().rev() {
        if let Some(first) = consumers[node].iter().map(|consumer| column[*consumer]).min() {
            column[node] = first - 1;
        }
    }
    column
}

/// Orders each column by where its neighbours are, then moves cells toward them as far as the order allows.
fn place(cells: &mut [Cell], grid: &mut [Vec<usize>]) {
    for column in grid.iter() {
        stack(cells, column, None);
    }
    for sweep in 0..SWEEPS {
        let rightward = sweep % 2 == 0;
        let mut pass = |column: &mut Vec<usize>| {
            let wish = wishes(cells, column, rightward);
            let mut ordered: Vec<(f64, usize)> = wish.into_iter().zip(column.iter().copied()).collect();
            ordered.sort_by(|a, b| a.0.total_cmp(&b.0));
            *column = ordered.iter().map(|(_, cell)| *cell).collect();
            let wish: Vec<f64> = ordered.iter().map(|(wish, _)| *wish).collect();
            stack(cells, column, Some(&wish));
        };
        if rightward {
            grid.iter_mut().for_each(&mut pass);
        } else {
            grid.iter_mut().rev().for_each(&mut pass);
        }
    }
}

/// The height each cell of a column would like: the mean of its neighbours on one side.
fn wishes(cells: &[Cell], column: &[usize], leftward_neighbours: bool) -> Vec<f64> {
    let wish = |&i: &usize| {
        let cell = &cells[i];
        let near = if leftward_neighbours { &cell.left } else { &cell.right };
        if near.is_empty() {
            cell.y
        } else {
            near.iter().map(|n| cells[*n].y).sum::<f64>() / near.len() as f64
        }
    };
    column.iter().map(wish).collect()
}

/// Puts the cells of a column below each other in order, as near to their wishes as their heights allow.
fn stack(cells: &mut [Cell], column: &[usize], wish: Option<&[f64]>) {
    let mut floor = f64::NEG_INFINITY;
    let mut moved = 0.0;
    for (row, &i) in column.iter().enumerate() {
        let half = cells[i].height / 2.0;
        let wished = wish.map_or(if row == 0 { 0.0 } else { floor + half }, |wish| wish[row]);
        cells[i].y = wished.max(floor + half);
        moved += cells[i].y - wished;
        floor = cells[i].y + half + ROW_GAP;
    }
    // Pushing down only would sink the column: give back the mean of it.
    let back = moved / column.len().max(1) as f64;
    for &i in column {
        cells[i].y -= back;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::{Arrow, Shape};

    fn layout(count: usize, links: &[(usize, usize)]) -> Layout {
        let nodes = (0..count).map(|i| Shape { id: i.to_string(), kind: "Stub", sink: false }).collect();
        let links = links.iter().map(|&(from, to)| Arrow { from, to, ty: "IMAGE" }).collect();
        Layout::new(&Drawing { nodes, links }, |_| 80.0)
    }

    #[test]
    fn links_lead_to_the_right_and_nodes_do_not_overlap() {
        let links = [(0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (4, 3), (3, 5)];
        let layout = layout(6, &links);
        for (path, (from, to)) in layout.links.iter().zip(links) {
            assert!(layout.nodes[from].0 + 80.0 < layout.nodes[to].0, "{from} is left of {to}");
            assert!(path.windows(2).all(|pair| pair[0].0 < pair[1].0), "{path:?}");
        }
        for a in 0..6 {
            for b in 0..a {
                let ((ax, ay), (bx, by)) = (layout.nodes[a], layout.nodes[b]);
                assert!((ax - bx).abs() >= 80.0 || (ay - by).abs() >= HEIGHT, "{a} and {b} overlap");
            }
        }
        assert!(
            layout
                .nodes
                .iter()
                .all(|(x, y)| *x > 0.0 && *y > 0.0 && *x < layout.size.0 && *y < layout.size.1)
        );
    }

    #[test]
    fn a_source_stands_beside_its_first_consumer() {
        let layout = layout(4, &[(0, 1), (1, 2), (3, 2)]);
        assert_eq!(layout.nodes[3].0, layout.nodes[1].0);
    }

    #[test]
    fn an_empty_graph_has_a_size() {
        assert!(layout(0, &[]).size.1 > 0.0);
    }
}
