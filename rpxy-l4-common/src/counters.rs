//! Enums of outcomes that index an array map: numbered for the programs, named for the metrics.

/// Declares such an enum, with all its variants, their number, and the name and index of each.
macro_rules! counters {
    ($(#[$about:meta])+ $counter:ident: $($(#[$doc:meta])+ $variant:ident = $number:literal, $name:literal;)+) => {
        $(#[$about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $counter {
            $($(#[$doc])+ $variant = $number,)+
        }

        impl $counter {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Number of counters.
            pub const COUNT: u32 = match Self::ALL {
                [.., last] => last.index() + 1,
                [] => 0,
            };

            /// Returns the name in the metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Returns the index in its map.
            #[inline(always)]
            #[must_use]
            pub const fn index(self) -> u32 {
                self as u32
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Debug;
    use std::vec::Vec;

    use crate::{tcp::counter::TcpCounter, verdict::Counter};

    fn check<C: Debug>(count: u32, counters: &[(&C, u32, &'static str)]) {
        assert_eq!(usize::try_from(count).unwrap(), counters.len());
        for (number, (counter, index, _)) in (0..).zip(counters) {
            assert_eq!(*index, number, "{counter:?}");
        }
        let names: BTreeSet<_> = counters.iter().map(|(_, _, name)| name).collect();
        assert_eq!(names.len(), counters.len());
        assert!(
            names.iter().all(|name| name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit()))
        );
    }

    #[test]
    fn counters_are_numbered_without_gaps_and_named_once() {
        check(Counter::COUNT, &Counter::ALL.iter().map(|c| (c, c.index(), c.name())).collect::<Vec<_>>());
        check(TcpCounter::COUNT, &TcpCounter::ALL.iter().map(|c| (c, c.index(), c.name())).collect::<Vec<_>>());
    }
}
