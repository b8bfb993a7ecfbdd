// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Code in documents: blocks between fences, and spans within lines.

/// A block.
pub(super) struct Block<'a> {
    /// Line of its fence, from 1.
    pub(super) line: usize,
    /// What the fence says that it is in.
    pub(super) language: &'a str,
    /// Its lines.
    pub(super) text: String,
}

/// All blocks.
pub(super) fn of(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut open: Option<Block<'_>> = None;
    for (line, content) in (1..).zip(text.lines()) {
        match (content.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => open = Some(Block { line, language: language.trim(), text: String::new() }),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(content);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Spans between backticks outside of blocks, with their lines.
pub(super) fn spans(text: &str) -> Vec<(usize, &str)> {
    let mut spans = Vec::new();
    let mut is_code = false;
    for (line, content) in (1..).zip(text.lines()) {
        if content.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            spans.extend(content.split('`').skip(1).step_by(2).map(|span| (line, span)));
        }
    }
    spans
}
