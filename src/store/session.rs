//! What a user did just now: recent events, under a key of their own that expires.

/// What a user did with an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventKind {
    /// Looked at it in a list: the weakest sign.
    View = 0,
    /// Opened it.
    Click = 1,
    /// Said that they like it, or kept it.
    Like = 2,
    /// Put it into the cart.
    Cart = 3,
    /// Bought it, or used it to the end.
    Purchase = 4,
    /// Said that they do not want it.
    Dislike = 5,
}

impl EventKind {
    /// All kinds; the place of one is its number.
    pub const ALL: [Self; 6] = [Self::View, Self::Click, Self::Like, Self::Cart, Self::Purchase, Self::Dislike];

    /// The name in requests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Click => "click",
            Self::Like => "like",
            Self::Cart => "cart",
            Self::Purchase => "purchase",
            Self::Dislike => "dislike",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What an event of this kind weighs where nobody says otherwise: a click 1, and the others by how much more, or less, they
    /// tell.
    pub const fn default_weight(self) -> f32 {
        match self {
            Self::View => 0.1,
            Self::Click => 1.0,
            Self::Like | Self::Purchase => 2.0,
            Self::Cart => 1.5,
            Self::Dislike => -1.0,
        }
    }
}
