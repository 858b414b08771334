//! What the live table shows and how keys change that. Where samples come from, and when it is drawn, is `top`'s.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use api::StarView;
use clap::ValueEnum;
use model::{Bytes, StarId, StarPhase};
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use crate::commands::stats::{Sample, bytes, or_dash};

/// What the rows are ordered by: amounts with the largest first, names from a to z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SortBy {
    Name,
    #[default]
    Cpu,
    Memory,
    Disk,
    Pids,
    Files,
    Restarts,
    Requests,
}

impl SortBy {
    fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Pids => "pids",
            Self::Files => "files",
            Self::Restarts => "restarts",
            Self::Requests => "requests",
        }
    }

    fn compare(self, a: &Sample, b: &Sample) -> Ordering {
        let amount = |sample: &Sample| -> Option<f64> {
            let stats = &sample.stats;
            let whole = |number: Option<u64>| number.map(|number| number as f64);
            match self {
                Self::Name => None,
                Self::Cpu => sample.cpu_percent,
                Self::Memory => whole(stats.memory_bytes),
                Self::Disk => whole(stats.disk_bytes),
                Self::Pids => whole(stats.pids),
                Self::Files => whole(stats.fds),
                Self::Restarts => whole(Some(stats.restarts)),
                Self::Requests => sample.requests_per_second,
            }
        };
        // What is not measured comes last.
        let [a_amount, b_amount] = [a, b].map(|sample| amount(sample).unwrap_or(-1.0));
        b_amount.total_cmp(&a_amount).then_with(|| natural(&a.stats.name).cmp(&natural(&b.stats.name)))
    }
}

/// `web-10` comes after `web-9`.
fn natural(name: &str) -> (&str, u32) {
    match name.rsplit_once('-').and_then(|(service, number)| Some((service, number.parse().ok()?))) {
        Some(parts) => parts,
        None => (name, 0),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Leave,
}

#[derive(Debug, Default)]
pub(super) struct Board {
    samples: Vec<Sample>,
    phases: BTreeMap<StarId, StarPhase>,
    sort: SortBy,
    filter: String,
    /// Keys go to the filter.
    typing: bool,
    /// The first row shown.
    first: usize,
    /// Rows there is room for, when it was drawn last.
    room: usize,
    problem: Option<String>,
}

impl Board {
    pub(super) fn new(sort: SortBy) -> Self {
        Self { sort, ..Self::default() }
    }

    pub(super) fn show(&mut self, samples: Vec<Sample>, stars: Vec<StarView>) {
        self.samples = samples;
        self.phases = stars.into_iter().map(|star| (star.id, star.phase)).collect();
        self.problem = None;
    }

    /// The last samples stay, with the reason why there are no newer ones.
    pub(super) fn fail(&mut self, problem: String) {
        self.problem = Some(problem);
    }

    /// The samples that are chosen, in their order.
    pub(super) fn rows(&self) -> Vec<Sample> {
        let mut rows: Vec<Sample> =
            self.samples.iter().filter(|sample| sample.stats.name.contains(&self.filter)).cloned().collect();
        rows.sort_by(|a, b| self.sort.compare(a, b));
        rows
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.kind == KeyEventKind::Release {
            return Next::Stay;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Leave } else { Next::Stay };
        }
        if self.typing {
            self.type_in(key.code);
            return Next::Stay;
        }
        let last = self.rows().len().saturating_sub(self.room.max(1));
        match key.code {
            KeyCode::Char('q') => return Next::Leave,
            KeyCode::Esc if self.filter.is_empty() => return Next::Leave,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Down | KeyCode::Char('j') => self.first += 1,
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown => self.first += self.room,
            KeyCode::PageUp => self.first = self.first.saturating_sub(self.room),
            KeyCode::Home => self.first = 0,
            KeyCode::End => self.first = last,
            KeyCode::Char('n') => self.sort = SortBy::Name,
            KeyCode::Char('c') => self.sort = SortBy::Cpu,
            KeyCode::Char('m') => self.sort = SortBy::Memory,
            KeyCode::Char('d') => self.sort = SortBy::Disk,
            KeyCode::Char('p') => self.sort = SortBy::Pids,
            KeyCode::Char('f') => self.sort = SortBy::Files,
            KeyCode::Char('s') => self.sort = SortBy::Restarts,
            KeyCode::Char('r') => self.sort = SortBy::Requests,
            _ => {}
        }
        self.first = self.first.min(last);
        Next::Stay
    }

    fn type_in(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            // No name is longer.
            KeyCode::Char(char) if self.filter.chars().count() < 80 => self.filter.push(char),
            _ => {}
        }
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>) {
        let [head, table, foot] =
            Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]).areas(frame.area());
        let rows = self.rows();
        self.room = usize::from(table.height.saturating_sub(1));
        self.first = self.first.min(rows.len().saturating_sub(self.room.max(1)));
        frame.render_widget(Paragraph::new(self.head(&rows)), head);
        self.draw_table(frame, table, &rows);
        frame.render_widget(self.foot(), foot);
    }

    fn head(&self, rows: &[Sample]) -> Text<'static> {
        // Begun with 0: the sum of no floats is -0.
        let sum = |amount: fn(&Sample) -> Option<f64>| rows.iter().filter_map(amount).fold(0.0, |sum, next| sum + next);
        let cpu = sum(|sample| sample.cpu_percent);
        let memory: u64 = rows.iter().filter_map(|sample| sample.stats.memory_bytes).sum();
        let requests = sum(|sample| sample.requests_per_second);
        let stars = crate::screen::count(rows.len(), "star");
        let sums = format!("{stars}, cpu {cpu:.1} %, memory {}, {requests:.0} requests/s", Bytes(memory));
        let second = match &self.problem {
            Some(problem) => Line::from(problem.clone()).red(),
            None if self.filter.is_empty() => Line::from(format!("by {}", self.sort.word())).dim(),
            None => Line::from(format!("by {}, only `{}`", self.sort.word(), self.filter)).dim(),
        };
        Text::from(vec![Line::from(sums).bold(), second])
    }

    fn draw_table(&self, frame: &mut Frame<'_>, area: Rect, rows: &[Sample]) {
        let columns: Vec<&Column> = COLUMNS.iter().filter(|column| area.width >= column.from_width).collect();
        let title = |column: &&Column| {
            let text = Line::from(column.title);
            Cell::from(if column.right { text.right_aligned() } else { text })
        };
        let head = Row::new(columns.iter().map(title)).reversed();
        let shown = rows.iter().skip(self.first).take(self.room).map(|sample| {
            Row::new(columns.iter().map(|column| {
                let text = Line::from((column.text)(self, sample));
                Cell::from(if column.right { text.right_aligned() } else { text })
            }))
        });
        let widths = columns.iter().map(|column| match column.width {
            0 => Constraint::Min(10),
            width => Constraint::Length(width),
        });
        frame.render_widget(Table::new(shown, widths).header(head).column_spacing(1), area);
    }

    fn foot(&self) -> Paragraph<'static> {
        if self.typing {
            return Paragraph::new(format!("only names with: {}_", self.filter));
        }
        Paragraph::new("q leave  / filter  by: n name c cpu m mem d disk p pids f files s restarts r req").dim()
    }
}

struct Column {
    title: &'static str,
    /// In characters; 0 takes what is left.
    width: u16,
    right: bool,
    /// Only on a screen of at least this width: the others fit into 80 columns.
    from_width: u16,
    text: fn(&Board, &Sample) -> String,
}

const COLUMNS: [Column; 14] = [
    Column { title: "NAME", width: 0, right: false, from_width: 0, text: |_, sample| sample.stats.name.clone() },
    Column { title: "STATE", width: 8, right: false, from_width: 0, text: |board, sample| board.phase(sample) },
    Column { title: "CPU", width: 7, right: true, from_width: 0, text: |_, sample| percent(sample.cpu_percent) },
    Column {
        title: "THROTTLED",
        width: 9,
        right: true,
        from_width: 120,
        text: |_, sample| percent(sample.throttled_percent),
    },
    Column {
        title: "MEMORY",
        width: 9,
        right: true,
        from_width: 0,
        text: |_, sample| bytes(sample.stats.memory_bytes),
    },
    Column {
        title: "OF",
        width: 9,
        right: true,
        from_width: 100,
        text: |_, sample| bytes(sample.stats.memory_limit_bytes),
    },
    Column {
        title: "PEAK",
        width: 9,
        right: true,
        from_width: 120,
        text: |_, sample| bytes(sample.stats.memory_peak_bytes),
    },
    Column { title: "DISK", width: 9, right: true, from_width: 0, text: |_, sample| bytes(sample.stats.disk_bytes) },
    Column {
        title: "IN/s",
        width: 9,
        right: true,
        from_width: 140,
        text: |_, sample| per_second(sample.network_received_bytes_per_second),
    },
    Column {
        title: "OUT/s",
        width: 9,
        right: true,
        from_width: 140,
        text: |_, sample| per_second(sample.network_sent_bytes_per_second),
    },
    Column { title: "PIDS", width: 5, right: true, from_width: 0, text: |_, sample| number(sample.stats.pids) },
    Column { title: "FILES", width: 5, right: true, from_width: 0, text: |_, sample| number(sample.stats.fds) },
    Column {
        title: "RESTARTS",
        width: 8,
        right: true,
        from_width: 0,
        text: |_, sample| number(Some(sample.stats.restarts)),
    },
    Column {
        title: "REQ/s",
        width: 6,
        right: true,
        from_width: 0,
        text: |_, sample| or_dash(sample.requests_per_second.map(|rate| format!("{rate:.0}"))),
    },
];

impl Board {
    fn phase(&self, sample: &Sample) -> String {
        or_dash(self.phases.get(&sample.stats.star).map(ToString::to_string))
    }
}

fn percent(percent: Option<f64>) -> String {
    or_dash(percent.map(|percent| format!("{percent:.1} %")))
}

fn per_second(rate: Option<f64>) -> String {
    bytes(rate.map(|rate| rate.round() as u64))
}

fn number(number: Option<u64>) -> String {
    or_dash(number.map(|number| number.to_string()))
}

#[cfg(test)]
mod tests {
    use api::StarStats;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::commands::stats::tests::unmeasured;

    fn sample(id: u64, name: &str, cpu: Option<f64>, memory: u64) -> Sample {
        let stats = StarStats {
            memory_bytes: Some(memory << 20),
            memory_limit_bytes: Some(256 << 20),
            pids: Some(3),
            ..unmeasured(id, name)
        };
        Sample { cpu_percent: cpu, ..Sample::new(stats, None) }
    }

    fn board() -> Board {
        let mut board = Board::new(SortBy::Cpu);
        let samples = vec![
            sample(1, "web-1", Some(1.0), 30),
            sample(2, "web-10", Some(99.5), 10),
            sample(3, "web-9", None, 20),
            sample(4, "db-1", Some(50.0), 40),
        ];
        board.show(samples, Vec::new());
        board
    }

    fn names(board: &Board) -> Vec<String> {
        board.rows().into_iter().map(|sample| sample.stats.name).collect()
    }

    fn press(board: &mut Board, keys: &str) -> Next {
        let mut next = Next::Stay;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            next = board.key(KeyEvent::new(code, KeyModifiers::NONE));
        }
        next
    }

    fn drawn(board: &mut Board, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| board.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol().to_owned()).collect::<String>();
        (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
    }

    #[test]
    fn rows_are_ordered_as_asked_and_what_is_not_measured_comes_last() {
        let mut board = board();
        assert_eq!(names(&board), ["web-10", "db-1", "web-1", "web-9"]);
        press(&mut board, "m");
        assert_eq!(names(&board), ["db-1", "web-1", "web-9", "web-10"]);
        press(&mut board, "n");
        assert_eq!(names(&board), ["db-1", "web-1", "web-9", "web-10"]);
        press(&mut board, "d");
        assert_eq!(names(&board), ["db-1", "web-1", "web-9", "web-10"], "by name where nothing is measured");
    }

    #[test]
    fn a_filter_is_typed_and_left_and_q_leaves() {
        let mut board = board();
        assert_eq!(press(&mut board, "/we\u{8}eb-q"), Next::Stay);
        assert!(names(&board).is_empty());
        press(&mut board, "\u{8}1\n");
        assert_eq!(names(&board), ["web-10", "web-1"]);
        assert_eq!(press(&mut board, "\u{1b}"), Next::Stay, "the filter first");
        assert_eq!(names(&board).len(), 4);
        assert_eq!(press(&mut board, "q"), Next::Leave);
        assert_eq!(press(&mut board, "\u{1b}"), Next::Leave);
        assert_eq!(board.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Next::Leave);
    }

    #[test]
    fn it_fits_into_a_small_terminal() {
        let mut board = board();
        let text = drawn(&mut board, 80, 24);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "4 stars, cpu 150.5 %, memory 100 MiB, 0 requests/s");
        assert!(lines[2].starts_with("NAME") && lines[2].ends_with("RESTARTS  REQ/s"), "{text}");
        assert!(lines[3].starts_with("web-10") && lines[3].contains("99.5 %") && lines[3].contains("10 MiB"), "{text}");
        assert!(lines[23].starts_with("q leave"), "{text}");
        // Whatever the size, it is drawn.
        for (width, height) in [(1, 1), (3, 2), (20, 4), (300, 100)] {
            drawn(&mut board, width, height);
        }
        assert!(drawn(&mut board, 200, 24).contains("THROTTLED"));
    }

    #[test]
    fn many_rows_are_scrolled_within_their_bounds() {
        let mut board = Board::new(SortBy::Name);
        board.show((1..=100).map(|n| sample(n, &format!("web-{n}"), None, 1)).collect(), Vec::new());
        assert!(drawn(&mut board, 80, 24).contains("web-20 ") && !drawn(&mut board, 80, 24).contains("web-21 "));
        board.key(KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        assert!(drawn(&mut board, 80, 24).contains("web-100 "));
        press(&mut board, "jjjjj");
        assert!(drawn(&mut board, 80, 24).contains("web-81 "), "not beyond the last");
        board.key(KeyEvent::new(KeyCode::Home, KeyModifiers::NONE));
        board.fail("the agent is away".to_owned());
        assert!(drawn(&mut board, 80, 24).contains("the agent is away"));
    }
}
