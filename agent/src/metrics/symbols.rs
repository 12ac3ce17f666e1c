//! The texts that labels are made of. The series of a node share most of them; so each is kept once, and a series is a list
//! of small numbers. Remote write 2.0 has it the same way.

use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

/// A text in its [`Symbols`], for as long as somebody holds it there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Symbol(u32);

/// The texts of the node; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Symbols(Arc<Mutex<SymbolTable>>);

/// The texts, each with how often it is held.
#[derive(Debug)]
pub struct SymbolTable {
    entries: Vec<Entry>,
    by_text: HashTable<Symbol>,
    free: Vec<Symbol>,
    hasher: RandomState,
    reassigned: u32,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    holders: u32,
}

// === impl Symbol ===

impl Symbol {
    /// The empty text. This one and those below are always there.
    pub const EMPTY: Symbol = Symbol(0);
    /// `__name__`
    pub const NAME: Symbol = Symbol(1);
    /// `le`
    pub const LE: Symbol = Symbol(2);
    /// `quantile`
    pub const QUANTILE: Symbol = Symbol(3);

    const FIXED: [&str; 4] = ["", "__name__", "le", "quantile"];

    /// Its place among all symbols.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

// === impl Symbols ===

impl Symbols {
    /// The table, for as long as the guard lives. Whoever has it drops nothing that holds symbols.
    pub fn lock(&self) -> MutexGuard<'_, SymbolTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl SymbolTable ===

impl Default for SymbolTable {
    fn default() -> Self {
        let mut table = SymbolTable {
            entries: Vec::new(),
            by_text: HashTable::new(),
            free: Vec::new(),
            hasher: RandomState::default(),
            reassigned: 0,
        };
        for text in Symbol::FIXED {
            table.hold(text);
        }
        table
    }
}

impl SymbolTable {
    /// Holds a text once more.
    pub fn hold(&mut self, text: &str) -> Symbol {
        if let Some(symbol) = self.find(text) {
            self.entries[symbol.index()].holders += 1;
            return symbol;
        }
        let entry = Entry { text: text.into(), holders: 1 };
        let symbol = match self.free.pop() {
            Some(symbol) => {
                self.reassigned = self.reassigned.wrapping_add(1);
                self.entries[symbol.index()] = entry;
                symbol
            }
            None => {
                self.entries.push(entry);
                Symbol(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
            }
        };
        let (hasher, entries) = (&self.hasher, &self.entries);
        let hash = |symbol: &Symbol| hasher.hash_one(&*entries[symbol.index()].text);
        self.by_text.insert_unique(hash(&symbol), symbol, hash);
        symbol
    }

    /// Holds a text once less; with nobody to hold it, its symbol becomes another one's.
    pub fn release(&mut self, symbol: Symbol) {
        let entry = &mut self.entries[symbol.index()];
        entry.holders -= 1;
        if entry.holders > 0 {
            return;
        }
        let hash = self.hasher.hash_one(&*entry.text);
        entry.text = Box::default();
        if let Ok(found) = self.by_text.find_entry(hash, |other| *other == symbol) {
            found.remove();
        }
        self.free.push(symbol);
    }

    /// The symbol of a text that somebody holds.
    pub fn find(&self, text: &str) -> Option<Symbol> {
        let is_it = |symbol: &Symbol| *self.entries[symbol.index()].text == *text;
        self.by_text.find(self.hasher.hash_one(text), is_it).copied()
    }

    /// The text.
    pub fn text(&self, symbol: Symbol) -> &str {
        &self.entries[symbol.index()].text
    }

    /// How often a symbol has become that of another text: as long as this stays, symbols mean what they meant.
    pub fn reassigned(&self) -> u32 {
        self.reassigned
    }

    /// How many places there are: every symbol's is below.
    pub fn places(&self) -> usize {
        self.entries.len()
    }

    /// How many texts are held.
    pub fn len(&self) -> usize {
        self.by_text.len()
    }

    /// Never: some texts are always there.
    pub fn is_empty(&self) -> bool {
        self.by_text.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_there_once_for_as_long_as_it_is_held() {
        let symbols = Symbols::default();
        let mut table = symbols.lock();
        let [a, again, b] = ["a", "a", "b"].map(|text| table.hold(text));
        assert!(a == again && a != b && table.find("a") == Some(a));
        table.release(a);
        assert_eq!(table.text(a), "a");
        table.release(a);
        assert_eq!((table.find("a"), table.len()), (None, Symbol::FIXED.len() + 1));
        let c = table.hold("c");
        assert!(c == a && table.text(c) == "c", "its place is used again");
        assert_eq!(table.reassigned(), 1);
        assert_eq!(table.find("b"), Some(b));
        for (text, symbol) in [
            ("", Symbol::EMPTY),
            ("__name__", Symbol::NAME),
            ("le", Symbol::LE),
            ("quantile", Symbol::QUANTILE),
        ] {
            assert_eq!(table.text(symbol), text);
        }
    }
}
