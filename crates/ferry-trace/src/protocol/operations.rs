//! What can be asked of a daemon.

use super::grammar::Item::{self, All, ByPath, Choice, Frames, Nar, Number, Repeat, Text};
use super::grammar::{BUILD_RESULT, DERIVATION, PAIRS, PATH_INFO, TEXTS};

/// An operation, and the form of its request and its reply.
#[derive(Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub number: u64,
    /// Its name in Nix's sources.
    pub name: &'static str,
    /// What a client says behind the number.
    pub request: &'static [Item],
    /// What the daemon says when it is done.
    pub reply: &'static [Item],
}

impl Operation {
    /// The operation with a number, if it is known.
    #[must_use]
    pub fn find(number: u64) -> Option<&'static Self> {
        ALL.iter().find(|operation| operation.number == number)
    }
}

const fn operation(
    number: u64,
    name: &'static str,
    request: &'static [Item],
    reply: &'static [Item],
) -> Operation {
    Operation { number, name, request, reply }
}

/// Every operation that clients of the known versions use.
pub const ALL: &[Operation] = &[
    operation(1, "IsValidPath", &[Text], &[Number]),
    operation(6, "QueryReferrers", &[Text], &[TEXTS]),
    operation(
        7,
        "AddToStore",
        // Name, content address method, references, repair.
        &[Text, Text, TEXTS, Number, Frames],
        &[Text, All(PATH_INFO)],
    ),
    operation(8, "AddTextToStore", &[Text, Text, TEXTS], &[Text]),
    operation(9, "BuildPaths", &[TEXTS, Number], &[Number]),
    operation(10, "EnsurePath", &[Text], &[Number]),
    operation(11, "AddTempRoot", &[Text], &[Number]),
    operation(12, "AddIndirectRoot", &[Text], &[Number]),
    operation(13, "SyncWithGC", &[], &[Number]),
    operation(14, "FindRoots", &[], &[PAIRS]),
    operation(16, "ExportPath", &[Text, Number], &[Number]),
    operation(18, "QueryDeriver", &[Text], &[Text]),
    operation(
        19,
        "SetOptions",
        &[
            Number, Number, Number, Number, Number, Number, Number, Number, Number, Number, Number,
            Number, PAIRS,
        ],
        &[],
    ),
    operation(
        20,
        "CollectGarbage",
        &[Number, TEXTS, Number, Number, Number, Number, Number],
        &[TEXTS, Number, Number],
    ),
    operation(
        21,
        "QuerySubstitutablePathInfo",
        &[Text],
        &[Choice(&[&[], &[Text, TEXTS, Number, Number]])],
    ),
    operation(22, "QueryDerivationOutputs", &[Text], &[TEXTS]),
    operation(23, "QueryAllValidPaths", &[], &[TEXTS]),
    operation(26, "QueryPathInfo", &[Text], &[Choice(&[&[], PATH_INFO])]),
    operation(27, "ImportPaths", &[], &[TEXTS]),
    operation(28, "QueryDerivationOutputNames", &[Text], &[TEXTS]),
    operation(29, "QueryPathFromHashPart", &[Text], &[Text]),
    operation(
        30,
        "QuerySubstitutablePathInfos",
        &[PAIRS],
        &[Repeat(&[Text, Text, TEXTS, Number, Number])],
    ),
    operation(31, "QueryValidPaths", &[TEXTS, Number], &[TEXTS]),
    operation(32, "QuerySubstitutablePaths", &[TEXTS], &[TEXTS]),
    operation(33, "QueryValidDerivers", &[Text], &[TEXTS]),
    operation(34, "OptimiseStore", &[], &[Number]),
    operation(35, "VerifyStore", &[Number, Number], &[Number]),
    operation(36, "BuildDerivation", &[Text, All(DERIVATION), Number], BUILD_RESULT),
    operation(37, "AddSignatures", &[Text, TEXTS], &[Number]),
    operation(38, "NarFromPath", &[Text], &[Nar]),
    operation(
        39,
        "AddToStoreNar",
        // Path, deriver, NAR hash, references, time, NAR size, whether built here, signatures,
        // content address, repair, whether signatures are not checked.
        &[Text, Text, Text, TEXTS, Number, Number, Number, TEXTS, Text, Number, Number, Frames],
        &[],
    ),
    operation(40, "QueryMissing", &[TEXTS], &[TEXTS, TEXTS, TEXTS, Number, Number]),
    operation(41, "QueryDerivationOutputMap", &[Text], &[PAIRS]),
    operation(42, "RegisterDrvOutput", &[ByPath(&[Text, Text, Text, TEXTS], &[Text])], &[]),
    operation(
        43,
        "QueryRealisation",
        &[ByPath(&[Text, Text], &[Text])],
        &[ByPath(&[Choice(&[&[], &[Text, TEXTS]])], &[TEXTS])],
    ),
    operation(44, "AddMultipleToStore", &[Number, Number, Frames], &[]),
    operation(45, "AddBuildLog", &[Text, Frames], &[Number]),
    operation(46, "BuildPathsWithResults", &[TEXTS, Number], &[Repeat(&[Text, All(BUILD_RESULT)])]),
    operation(47, "AddPermRoot", &[Text, Text], &[Text]),
];
