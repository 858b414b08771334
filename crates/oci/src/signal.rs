//! Signals by name or number.

const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];
/// Real-time signals, as the C library numbers them.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1`.
pub(crate) fn parse(text: &str) -> Result<i32, String> {
    let wrong = || format!("`{}` is not a signal", text.escape_debug());
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number).ok_or_else(wrong);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Ok(*number);
    }
    let real_time = |base: &str, from: i32, sign: i32| {
        let rest = name.strip_prefix(base)?;
        let steps = match rest.strip_prefix(if sign > 0 { '+' } else { '-' }) {
            Some(steps) => steps.parse::<i32>().ok().filter(|steps| *steps >= 0)?,
            None => rest.is_empty().then_some(0)?,
        };
        Some(steps.checked_mul(sign)?.checked_add(from)?).filter(|number| (RTMIN..=RTMAX).contains(number))
    };
    real_time("RTMIN", RTMIN, 1).or_else(|| real_time("RTMAX", RTMAX, -1)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("TERM", 15), ("SIGKILL", 9), ("sigusr1", 10), ("64", 64), ("RTMIN+1", 35), ("SIGRTMAX-2", 62)]
        {
            assert_eq!(parse(text), Ok(number));
        }
        for text in ["", "0", "-1", "65", "SIG", "NOPE", "RTMIN+31", "RTMAX+1", "KILL\n"] {
            assert!(parse(text).unwrap_err().contains("not a signal"), "{text}");
        }
    }
}
