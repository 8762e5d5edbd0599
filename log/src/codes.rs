//! Enums whose values are stored or sent as a byte.

/// Makes such an enum, and its `parse`: each number stands in one place.
#[macro_export]
macro_rules! codes {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident {
            $($(#[$says:meta])* $variant:ident = $byte:literal,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        $vis enum $name {
            $($(#[$says])* $variant = $byte,)*
        }

        impl $name {
            /// What a byte stands for; `None`: nothing.
            $vis fn parse(byte: u8) -> Option<Self> {
                Some(match byte {
                    $($byte => Self::$variant,)*
                    _ => return None,
                })
            }
        }
    };
}
