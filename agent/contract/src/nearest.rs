//! The right name for a misspelled one.

/// The candidate that takes the fewest edits to reach from `word`, the first of equals; `None` without candidates.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates.into_iter().min_by_key(|candidate| distance(word, candidate))
}

/// The candidate that `word` is most likely a slip of the keyboard for: at most two edits away and fewer than half of its characters.
pub fn misspelled<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let candidate = nearest(word, candidates)?;
    let edits = distance(word, candidate);
    (edits > 0 && edits <= 2 && edits * 2 < candidate.chars().count()).then_some(candidate)
}

/// How many characters have to be added, removed, replaced or swapped with their neighbour, each at most once.
pub fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    // Rows of the classic table; the one before the last is for swaps.
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut previous = None;
    for (i, a) in from.chars().enumerate() {
        let mut row = vec![i + 1];
        for (j, &b) in to.iter().enumerate() {
            let mut edits = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous == Some(b) && to[j - 1] == a {
                edits = edits.min(before_last[j - 1] + 1);
            }
            row.push(edits);
        }
        before_last = std::mem::replace(&mut last, row);
        previous = Some(a);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_one_edit() {
        for (from, to) in [("prse", "parse"), ("parsse", "parse"), ("pasre", "parse"), ("parze", "parse")] {
            assert_eq!(distance(from, to), 1, "{from} -> {to}");
            assert_eq!(distance(to, from), 1, "{to} -> {from}");
        }
    }

    #[test]
    fn distances_of_known_pairs() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ca", "abc"), 3);
        assert_eq!(distance("é", "e"), 1);
    }

    #[test]
    fn the_nearest_name_is_found() {
        assert_eq!(nearest("jsn", ["none", "json", "auto"]), Some("json"));
        assert_eq!(nearest("jsn", []), None);
    }

    #[test]
    fn only_a_close_name_counts_as_misspelled() {
        assert_eq!(misspelled("jav", ["rust", "java", "go"]), Some("java"));
        assert_eq!(misspelled("java", ["rust", "java", "go"]), None);
        assert_eq!(misspelled("g", ["rust", "java", "go"]), None);
        assert_eq!(misspelled("start", ["rust", "java", "go"]), None);
    }
}
