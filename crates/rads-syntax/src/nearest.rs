//! Finding the word that was probably meant.

/// Longer words are not compared: the cost grows with the product of the lengths, and nobody mistypes such names.
const WORD_MAX_CHARS: usize = 64;

/// Shorter beginnings fit too many words to say anything.
const BEGINNING_MIN_CHARS: usize = 3;

/// The known word nearest to `wrong`, when one is near enough to be worth naming: no more than a third of its characters
/// were changed, left out, added or exchanged with their neighbour; or, failing that, one that it is the beginning of.
/// Among equally near ones the first wins.
pub fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong: Vec<char> = wrong.chars().flat_map(char::to_lowercase).take(WORD_MAX_CHARS + 1).collect();
    if wrong.len() > WORD_MAX_CHARS {
        return None;
    }
    let mut best = None;
    let mut longer = None;
    for word in known {
        let chars: Vec<char> = word.chars().flat_map(char::to_lowercase).take(WORD_MAX_CHARS + 1).collect();
        if longer.is_none() && wrong.len() >= BEGINNING_MIN_CHARS && chars.starts_with(&wrong) {
            longer = Some(word);
        }
        let bound = wrong.len().max(chars.len()).div_ceil(3);
        if chars.len() > WORD_MAX_CHARS || wrong.len().abs_diff(chars.len()) > bound {
            continue;
        }
        let distance = distance(&wrong, &chars);
        if distance <= bound && distance < wrong.len().max(2) && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word).or(longer)
}

/// Optimal string alignment: insertions, deletions, substitutions and exchanges of neighbours, each of cost 1.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, to) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(from != to)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && *from == b[j - 1] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_finds_the_word_that_was_meant_and_a_different_word_finds_none() {
        let known = ["instances", "cpu_percent", "ram_mb", "ram_gb", "port", "read_file"];
        let cases = [
            ("instnaces", Some("instances")),
            ("instance", Some("instances")),
            ("cpu_precent", Some("cpu_percent")),
            ("raed_file", Some("read_file")),
            ("PORT", Some("port")),
            ("ram", Some("ram_mb")),
            ("colour", None),
            ("x", None),
            ("", None),
        ];
        for (wrong, expected) in cases {
            assert_eq!(nearest(wrong, known.into_iter()), expected, "{wrong}");
        }
    }

    #[test]
    fn words_of_any_length_are_taken() {
        let long = "x".repeat(1 << 20);
        assert_eq!(nearest(&long, [long.as_str()].into_iter()), None);
    }
}
