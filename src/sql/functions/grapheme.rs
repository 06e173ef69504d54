//! Grapheme clusters, by the rules of Unicode's annex 29 that matter without its tables: marks,
//! joiners, modifiers, variation selectors, flags and CR LF. Rare scripts' spacing marks count apart.

/// Marks that belong to what stands before them: the blocks and runs that hold most of `Extend`.
const EXTENDING: &[(char, char)] = &[
    ('\u{300}', '\u{36f}'),
    ('\u{483}', '\u{489}'),
    ('\u{591}', '\u{5bd}'),
    ('\u{610}', '\u{61a}'),
    ('\u{64b}', '\u{65f}'),
    ('\u{900}', '\u{903}'),
    ('\u{93a}', '\u{93c}'),
    ('\u{93e}', '\u{94f}'),
    ('\u{e31}', '\u{e31}'),
    ('\u{e34}', '\u{e3a}'),
    ('\u{e47}', '\u{e4e}'),
    ('\u{1160}', '\u{11ff}'),
    ('\u{1ab0}', '\u{1aff}'),
    ('\u{1dc0}', '\u{1dff}'),
    ('\u{200c}', '\u{200d}'),
    ('\u{20d0}', '\u{20f0}'),
    ('\u{302a}', '\u{302f}'),
    ('\u{3099}', '\u{309a}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{fe20}', '\u{fe2f}'),
    ('\u{1f3fb}', '\u{1f3ff}'),
    ('\u{e0020}', '\u{e007f}'),
    ('\u{e0100}', '\u{e01ef}'),
];

const JOINER: char = '\u{200d}';

/// The clusters of a text, in order.
pub(super) fn clusters(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let length = first(rest);
        let (cluster, after) = rest.split_at_checked(length).filter(|_| length > 0)?;
        rest = after;
        Some(cluster)
    })
}

/// Bytes of the first cluster.
fn first(text: &str) -> usize {
    let mut characters = text.chars();
    let Some(start) = characters.next() else {
        return 0;
    };
    let mut length = start.len_utf8();
    let mut before = start;
    let mut flag_is_half = is_regional(start);
    for next in characters {
        let joined = before == JOINER && !next.is_ascii();
        let belongs = (before == '\r' && next == '\n')
            || (!start.is_control() && (extends(next) || joined))
            || (flag_is_half && is_regional(next));
        if !belongs {
            break;
        }
        flag_is_half = false;
        before = next;
        length += next.len_utf8();
    }
    length
}

fn extends(character: char) -> bool {
    !character.is_ascii()
        && EXTENDING
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&character))
}

fn is_regional(character: char) -> bool {
    ('\u{1f1e6}'..='\u{1f1ff}').contains(&character)
}
