//! Every question, of random worlds, as the model answers it.

use proptest::prelude::*;

use crate::answers::{gaps, nodes, questions, unrecorded};
use crate::model::Model;
use crate::plan::worlds;
use crate::source::explorer;
use crate::world::Names;

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn every_answer_is_the_models(
        (world, asked) in questions(worlds()),
        names_them in any::<bool>(),
    ) {
        let mut explorer = explorer(&world);
        let named: Names = if names_them {
            asked.iter().flat_map(|question| question.names()).collect()
        } else {
            Names::new()
        };
        for node in nodes(&mut explorer, &named).iter() {
            explorer.name(node);
        }
        let mut model = Model::new(&world, &named);
        for question in &asked {
            let answer = question.ask(&mut explorer);
            question.check(&mut model, &answer);
            prop_assert_eq!(&gaps(&explorer), &model.gaps, "missing after {:?}", question);
            prop_assert_eq!(&unrecorded(&explorer), &model.unrecorded);
        }
        prop_assert!(explorer.graph().disagreements().is_empty());
        // Sets are sorted as texts are.
        let all: Names = asked.iter().flat_map(|question| question.names()).collect();
        let set = nodes(&mut explorer, &all);
        let sorted = explorer.sorted(&set).into_iter().map(|node| explorer.graph().render(node));
        prop_assert!(sorted.eq(all));
    }
}
