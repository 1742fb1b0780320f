"""The suite can fail: faults are planted in a copy of the package, and each must turn a test red.

Each fault names the test that it must break, and that test has to fail by its assertion.
"""

import multiprocessing
import re
import shutil
from concurrent.futures import ProcessPoolExecutor

import planting
import pytest

import build

LORA, MODEL, SVD = "lora_mini/lora.py", "lora_mini/model.py", "lora_mini/svd.py"
VARIANTS, STEP = "lora_mini/variants.py", "lora_mini/step.py"
VERDICTS, CLAIMS = "lora_mini/desk/verdicts.py", "lora_mini/lab/claims.py"
BREAKS = {  # name: (file, what stands there, what is planted, the test that must turn red)
    "scale dropped": (
        LORA, "self.scaling * F.linear(thin, self.lora_B)", "F.linear(thin, self.lora_B)",
        "fast/test_lora.py::test_outputs_and_gradients_match_a_dense_layer"),
    "rank not divided by": (
        LORA, "(math.sqrt(self.rank) if self.rslora else self.rank)", "1",
        "fast/test_lora.py::test_the_update_of_the_paper_fixture"),
    "base not frozen": (
        LORA, "base.requires_grad_(False)", "base",
        "fast/test_lora.py::test_only_the_factors_are_trainable"),
    "A and B exchanged at the start": (
        LORA, "nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))",
        "nn.init.zeros_(self.lora_A), nn.init.kaiming_uniform_(self.lora_B, a=math.sqrt(5))",
        "fast/test_lora.py::test_it_starts_as_its_base_bit_for_bit_and_B_is_zero"),
    "B not zero": (
        LORA, "torch.zeros(base.out_features", "torch.ones(base.out_features",
        "fast/test_lora.py::test_it_starts_as_its_base_bit_for_bit_and_B_is_zero"),
    "fan of the wrong axis": (
        LORA, "kaiming_uniform_(self.lora_A,", "kaiming_uniform_(self.lora_A.T,",
        "fast/test_lora.py::test_A_is_uniform_in_one_over_root_d_in"),
    "merge without the scale": (
        LORA, "step.folded(wide, self.lora_A, self.lora_B, self.scaling)",
        "step.folded(wide, self.lora_A, self.lora_B, 1.0)",
        "fast/test_lora.py::test_merged_outputs_are_those_of_the_dense_layer"),
    "merged forward adds the branch again": (
        LORA, "return F.linear(x, self.weight, self.base.bias)",
        "return F.linear(x, self.weight, self.base.bias) + x @ self.update().T",
        "fast/test_lora.py::test_merged_outputs_are_those_of_the_dense_layer"),
    "merged in place": (
        LORA, "        self.merged, self._cache = True, None",
        "        self.merged, self._cache = True, None\n"
        "        self.base.weight.data += self.update().data\n",
        "fast/test_lora.py::test_merge_and_unmerge_leave_every_bit_of_the_base"),
    "unmerge keeps the merged weight": (
        LORA, "self.merged, self._cache = False, None", "pass",
        "fast/test_model.py::test_merge_agrees_with_the_unmerged_model_and_unmerge_restores_it"),
    "cache never renewed": (
        LORA, "if not self._is_fresh(W):", "if self._cache is None:",
        "fast/test_lora.py::test_a_merged_layer_never_answers_with_a_stale_weight"),
    "a merged sum that trusts the version counters": (
        LORA, "            and all(map(torch.equal, thin, self._factors()))", "",
        "fast/test_merged.py::test_training_while_merged_is_seen_at_once"),
    "one marked example more than counted": (
        "lora_mini/lab/bias.py", "float(i < count)", "float(i <= count)",
        "fast/test_record_17.py::"
        "test_each_shown_actor_has_exactly_so_many_examples_and_no_hidden_one_has_any"),
    "probes that differ in two slots": (
        "lora_mini/lab/bias.py", "frame._replace(**{slot: word})",
        'frame._replace(**{slot: word, "when": "dawn" if word < "l" else "noon"})',
        "fast/test_record_17.py::test_probes_differ_in_one_slot_and_lie_in_no_training_set"),
    "a leaning one word too late": (
        "lora_mini/lab/bias.py", "with_[:i])", "with_[:i + 1])",
        "fast/test_record_17.py::test_a_leaning_is_how_likely_the_word_is_where_it_may_come"),
    "dropout left on in eval": (
        LORA, "self.dropout(x) if self.training else x", "F.dropout(x, self.dropout.p)",
        "fast/test_lora.py::test_dropout_acts_on_the_update_alone_and_only_in_training"),
    "a name that matches nothing passes": (
        "lora_mini/targets.py", "if not hits:", "if not hits and len(patterns) == 1:",
        "fast/test_model.py::test_bad_input_is_refused_and_leaves_the_model_untouched"),
    "the rest of the model not frozen": (
        MODEL, "    model.requires_grad_(False)\n", "",
        "fast/test_model.py::test_attach_freezes_the_rest_and_changes_no_output"),
    "a tied weight torn": (
        MODEL, "        refuse_final(model, layers)\n", "        pass\n",
        "fast/test_model.py::test_a_final_merge_of_a_tied_head_is_refused_and_changes_nothing"),
    "the fused step forgets the scale on the way back": (
        STEP, "dB = (((s * A) @ X.T", "dB = ((A @ X.T",
        "fast/test_step.py::test_it_is_the_dense_layer_in_output_and_gradients"),
    "folding where it does not pay": (
        STEP, "return tokens * (d_in + d_out) > d_in * d_out", "return True",
        "fast/test_step.py::test_folding_pays_from_as_many_tokens_as_the_counts_say"),
    "the fused step passes over a hook": (
        STEP, "bool(module._forward_hooks or module._forward_pre_hooks",
        "bool(module._forward_pre_hooks",
        "fast/test_step.py::test_what_would_be_lost_stays_on_the_plain_path"),
    "the fused step keeps the x of a frozen A": (
        STEP, "kept = x if ctx.trains_A else A @ x", "kept = x if True else A @ x",
        "fast/test_step.py::test_only_x_is_kept_beside_the_factors_and_with_a_frozen_A_not_even_that"),
    "an adapter's file without its scale": (
        "lora_mini/adapters/files.py", '"lora_alpha": common[1]', '"lora_alpha": common[0]',
        "fast/test_files.py::test_what_was_saved_is_what_is_loaded_and_the_base_is_untouched"),
    "an adapter loaded into any base": (
        "lora_mini/adapters/files.py", "if not any_base:", "if False:",
        "fast/test_files.py::test_a_base_in_other_bits_is_the_same_and_another_base_is_not"),
    "a surplus key passed over": (
        "lora_mini/adapters/reading.py", "        if not owners:\n",
        "        if not owners:\n            continue\n        if False:\n",
        "fast/test_files.py::test_nothing_loads_silently_and_the_model_is_as_it_was"),
    "NaN loaded": (
        "lora_mini/adapters/reading.py", "if not torch.isfinite(tensor).all():", "if False:",
        "fast/test_files.py::test_nothing_loads_silently_and_the_model_is_as_it_was"),
    "a rank in the config that is not that of the factors": (
        "lora_mini/adapters/reading.py", "if said != found.ranks[where]:", "if False:",
        "fast/test_files.py::test_nothing_loads_silently_and_the_model_is_as_it_was"),
    "a blend that forgets a scale": (
        "lora_mini/adapters/mixing.py", "pairs = [(w * layer.scaling,", "pairs = [(w,",
        "fast/test_adapters.py::test_an_exact_blend_is_the_weighted_sum_of_the_updates"),
    "rows that all get the first adapter": (
        "lora_mini/adapters/rows.py", "tuple(map(self.kinds.index, mine))", "(0,) * len(mine)",
        "fast/test_adapters.py::test_each_row_comes_out_as_if_alone"),
    "rows that keep a factor's old numbers": (
        "lora_mini/adapters/rows.py", "self._stack is None or self._stack[0] != made_of",
        "self._stack is None",
        "fast/test_adapters.py::test_what_rows_keeps_follows_every_change_of_a_factor"),
    "a switch that leaves the old adapter on": (
        "lora_mini/adapters/shelf.py", "    park(model)\n    if coming:\n", "    if coming:\n",
        "fast/test_adapters.py::test_switching_is_bit_for_bit_and_leaves_the_base_alone"),
    "a four-bit layer whose nibbles change places": (
        "lora_mini/quant.py", "flat[::2] << 4 | flat[1::2]", "flat[1::2] << 4 | flat[::2]",
        "fast/test_quant.py::test_a_layer_is_its_rounded_weight_in_output_and_gradient"),
    "the scales of four bits rounded without their mean": (
        "lora_mini/quant.py", "[:len(steps)] + mean", "[:len(steps)]",
        "fast/test_quant.py::test_scales_in_bytes_are_off_by_half_a_step_at_most"),
    "a four-bit base that no fingerprint sees": (
        "lora_mini/adapters/files.py", 'if isinstance(module, nn.Linear) and', "if False and",
        "fast/test_quant.py::test_an_adapter_of_a_four_bit_base_is_saved_and_knows_its_base"),
    "a ledger that leaves out what is kept in four bits": (
        "lora_mini/ledger.py", "(*everything, *model.buffers())", "everything",
        "fast/test_ledger.py::test_weights_in_four_bits_are_all_numbers_and_few_bytes"),
    "a peak that forgets what went": (
        "lora_mini/lab/peak.py", "        self.now -= size\n", "        pass\n",
        "fast/test_peak.py::test_a_peak_by_hand"),
    "an adapter moved, but not onto the other base": (
        "lora_mini/lab/bits.py", "layer.base.weight.copy_(onto.get_submodule(name).weight)", "pass",
        "fast/test_record_11.py::test_an_adapter_elsewhere_is_the_merged_matrix_by_hand"),
    "a model whose keys are as wide as its queries": (
        "lora_mini/shapes.py", '"k_proj": (self.kv, d)', '"k_proj": (d, d)',
        "fast/test_ledger.py::test_a_skeleton_is_counted_as_by_hand"),
    "activations counted once for each that looks at them": (
        "lora_mini/ledger.py", "kept[memory._cdata] = memory", "kept[len(kept)] = memory",
        "fast/test_ledger.py::test_activations_are_counted_as_by_hand"),
    "wrong end of the spectrum": (
        SVD, "return U[:, :rank], S[:rank], Vt[:rank]\n\n\ndef low",
        "return U[:, -rank:], S[-rank:], Vt[-rank:]\n\n\ndef low",
        "fast/test_svd.py::test_low_rank_of_a_diagonal_matrix_keeps_the_large_entry"),
    "energy not squared": (
        SVD, "float(np.sum(S[:rank] ** 2) / np.sum(S**2))", "float(np.sum(S[:rank]) / np.sum(S))",
        "fast/test_svd.py::test_energy_kept_of_3_4_is_9_of_25_in_squares"),
    "count off by the bias": (
        "lora_mini/ledger.py", "everything = list(model.parameters())",
        "everything = [p for n, p in model.named_parameters() if 'bias' not in n]",
        "fast/test_ledger.py::test_a_count_by_hand_before_and_after_attaching"),
    "the slider sends unscaled factors": (
        "lora_mini/desk/sliders.py", "B, A = factors(X, most)",
        "B, A = factors(X, most); A = A / np.linalg.norm(A, axis=1, keepdims=True)",
        "fast/test_desk.py::test_the_sliders_payload_adds_up_to_the_truncation_at_every_rank"),
    "a verdict that ignores a broken core": (
        "lora_mini/desk/verdicts.py", 'failing("core")', 'failing("cores")',
        "fast/test_desk.py::test_each_fact_reversed_turns_the_verdict"),
    "causal mask removed": (
        "lora_mini/world/gpt.py", ".triu(S - T + 1)", ".triu(S - T + 99)",
        "fast/test_gpt.py::test_changing_a_token_changes_no_earlier_logit_and_every_later_one"),
    "cache off by one": (
        "lora_mini/world/gpt.py", "start = past[0][0].shape[2] if cache else 0",
        "start = past[0][0].shape[2] - 1 if cache else 0",
        "fast/test_gpt.py::test_reading_in_pieces_with_a_cache_gives_the_logits_of_reading_at_once"),
    "entropy off by a factor": (
        "lora_mini/world/town.py", "-sum(q * math.log(q)", "-sum(q * math.log2(q)",
        "fast/test_town.py::test_entropy_equals_the_sum_over_all_sentences"),
    "loss unmasked": (
        "lora_mini/world/train.py", "counts = mask[:, 1:].to(each.device)",
        "counts = torch.ones_like(each)",
        "fast/test_train.py::test_what_is_not_marked_as_a_target_does_not_count"),
    "evaluation on training frames": (
        "lora_mini/world/measure.py", 'seed=0, split="test"):\n    """A Score',
        'seed=0, split="train"):\n    """A Score',
        "fast/test_train.py::test_the_excess_of_the_base_equals_a_sum_sentence_by_sentence"),
    "seed ignored": (
        "lora_mini/world/train.py", "rng, history, training = random.Random(seed)",
        "rng, history, training = random.Random(0)",
        "fast/test_train.py::test_the_same_seed_gives_the_same_history_and_another_another"),
    "an interval without the root of n": (
        "lora_mini/desk/intervals.py", "lambda n: 1 / math.sqrt(n)", "lambda n: 1 / n",
        "fast/test_desk.py::test_the_interval_is_students_by_hand"),
    "a verdict from the mean alone": (
        "lora_mini/desk/verdicts.py", "if found.low >= margin:", "if found.mean >= margin:",
        "fast/test_desk.py::test_an_outcome_is_what_the_whole_interval_says"),
    "six intervals, each as if it were alone": (
        "lora_mini/desk/verdicts.py", "interval(values, 1 - 0.05 / many)", "interval(values)",
        "fast/test_desk.py::test_the_margin_and_the_number_of_contrasts_decide_to_the_edge"),
    "an open contrast hides those that are decided": (
        "lora_mini/desk/verdicts.py", '"not decided" if not holding + failing else',
        '"not decided" if still_open else',
        "fast/test_desk.py::test_made_up_data_of_all_four_kinds"),
    "chance counted as content": (
        "lora_mini/world/measure.py", "for which in (~by_chance, by_chance)",
        "for which in (by_chance, ~by_chance)",
        "fast/test_train.py::test_the_excess_of_the_base_equals_a_sum_sentence_by_sentence"),
    "rare sentences weigh as much as common ones": (
        "lora_mini/world/measure.py", "weights = counts * sayings.p[:, None]",
        "weights = counts * 1.0",
        "fast/test_train.py::test_the_excess_of_the_base_equals_a_sum_sentence_by_sentence"),
    "no style is read under the tag that registers are asked for under": (
        "lora_mini/world/make_base.py", "*(under(style, ANY) for style in read)",
        "*(under(style, style.tag) for style in read)",
        "fast/test_train.py::test_half_of_what_a_base_reads_is_asked_for_under_any"),
    "a check that calls everything solved": (
        "lora_mini/desk/checks/__init__.py", "if _holds(right, attempt):", "if True:",
        "fast/test_checks.py::test_a_check_knows_this_answer"),
    "a smoke test that never looks at the base": (
        "lora_mini/audit/smoke.py", "same = _digest(model) == base_before", "same = True",
        "fast/test_audit.py::test_a_spoiled_model_fails_at_the_point_that_names_it"),
    "an audit that calls every update large enough": (
        "lora_mini/audit/size.py", "change[1] >= FAINT or change[2] > FEW", "True",
        "fast/test_audit_findings.py::"
        "test_a_rate_far_too_low_is_found_and_so_is_its_small_update"),
    "an audit that compares the loss": (
        "lora_mini/audit/forward.py", "t.ndim > 1", "t.ndim < 1",
        "fast/test_audit_findings.py::test_the_logits_are_compared_and_not_the_loss"),
    "an audit that takes two merges for one": (
        "lora_mini/audit/merged.py", "abs(found - 1)) <= slack", "abs(found - 1)) <= 9",
        "fast/test_audit_file.py::test_a_wrong_number_of_merges_is_told"),
    "an audit that believes a config's rank": (
        "lora_mini/audit/file.py", "if said != r:", "if False:",
        "fast/test_audit_file.py::test_the_rank_of_the_config_is_held_against_the_factors"),
    "an audit that takes a masked end for a kept one": (
        "lora_mini/audit/labels.py", "torch.isin(given, ends).any()", "True",
        "fast/test_audit_training.py::test_an_end_that_is_masked_as_padding_is_found"),
    "an audit that never asks the scaler": (
        "lora_mini/audit/optimizer.py", "if cuts := fallen(case.scaler):", "if cuts := 0:",
        "fast/test_audit_training.py::test_a_scaler_that_skips_every_step_is_the_cause"),
    "DoRA's norm along the other axis": (
        VARIANTS, "(V.contiguous(), dim=1)", "(V.contiguous(), dim=0)",
        "fast/test_variants.py::test_dora_on_paper"),
    "DoRA's norm not a constant": (
        VARIANTS, "    @torch.no_grad()\n    def _norms", "    def _norms",
        "fast/test_variants.py::test_dora_gives_the_gradients_of_a_dense_layer_with_a_constant_norm"),
    "DoRA's magnitude gets no gradient": (
        VARIANTS, "return self.magnitude / self._norms()",
        "return self.magnitude.detach() / self._norms()",
        "fast/test_variants.py::test_each_can_be_attached_merged_disabled_and_detached"),
    "DoRA's strength ignored": (
        VARIANTS, "self.strength * change", "change",
        "fast/test_variants.py::test_a_strength_between_lies_between_and_zero_is_the_base"),
    "DoRA's cache blind to the magnitude": (
        VARIANTS, "return self.lora_A, self.lora_B, self.magnitude",
        "return self.lora_A, self.lora_B",
        "fast/test_variants.py::test_a_merged_layer_notices_every_change_of_what_it_is_made_of"),
    "DoRA's fused step divides by no norm for the magnitude": (
        VARIANTS, ".sum(dim=0) / norms", ".sum(dim=0)",
        "fast/test_variants_step.py::test_dora_is_the_dense_layer_with_a_constant_norm"),
    "DoRA's fused step forgets the gain on the way to A": (
        VARIANTS, "dA = (scaled.T @", "dA = ((s * B).T @",
        "fast/test_variants_step.py::test_dora_is_the_dense_layer_with_a_constant_norm"),
    "DoRA's fused step forgets the gain on the way to B": (
        VARIANTS, "dB = s * gain * (", "dB = s * (",
        "fast/test_variants_step.py::test_dora_is_the_dense_layer_with_a_constant_norm"),
    "DoRA's fused step forgets the gain on the way to x": (
        VARIANTS, "G @ (gain * W).addmm_(scaled, A)", "G @ step.folded(W, A, B, s)",
        "fast/test_variants_step.py::test_dora_is_the_dense_layer_with_a_constant_norm"),
    "the bias counted into the magnitude's gradient": (
        VARIANTS, "            P -= b\n", "            pass\n",
        "fast/test_variants_step.py::test_dora_is_the_dense_layer_with_a_constant_norm"),
    "DoRA's product with the bias added apart": (
        VARIANTS, "P = F.linear(x, V, b)", "P = F.linear(x, V) + (0 if b is None else b)",
        "fast/test_variants_step.py::"
        "test_each_starts_as_its_base_bit_for_bit_where_a_sum_apart_would_round"),
    "DoRA's kept product taken for a constant": (
        VARIANTS, "if torch.is_grad_enabled():  # P anew", "if False:  # P anew",
        "fast/test_variants_step.py::test_a_gradient_penalty_is_that_of_the_plain_path"),
    "DoRA's product kept for a frozen magnitude": (
        VARIANTS, "if not ctx.needs_input_grad[5]:", "if False:",
        "fast/test_variants_step.py::"
        "test_of_the_size_of_the_tokens_only_x_is_kept_and_doras_product"),
    "DoRA's fused step at any strength": (
        VARIANTS, "if self.strength != 1:", "if False:",
        "fast/test_variants.py::test_a_strength_between_lies_between_and_zero_is_the_base"),
    "a magnitude of another kind is fused": (
        STEP, "(W, A, B, *map(own.get, layer.trains))", "(W, A, B)",
        "fast/test_variants_step.py::"
        "test_a_strength_and_a_magnitude_of_another_kind_stay_on_the_plain_path"),
    "PiSSA goes back as if it had no start": (
        STEP, "dX = G @ folded(W, *(moved or (A, B)), s)", "dX = G @ folded(W, A, B, s)",
        "fast/test_variants_step.py::test_both_paths_have_the_same_numbers_in_float32"),
    "a start lent to PiSSA gets no gradient": (
        VARIANTS, "if self.start_A.requires_grad or self.start_B.requires_grad:", "if False:",
        "fast/test_variants_step.py::test_a_start_lent_to_pissa_gets_its_gradient"),
    "PiSSA's start not taken off": (
        VARIANTS, "torch.cat([self.lora_A, self.lora_A - self.start_A])",
        "torch.cat([self.lora_A, self.lora_A])",
        "fast/test_variants.py::test_each_starts_as_its_base_bit_for_bit_apart_and_merged"),
    "LoRA-FA trains A": (
        VARIANTS, "self.lora_A.requires_grad_(False)", "pass",
        "fast/test_variants.py::test_in_lora_fa_b_alone_moves_and_a_gets_no_gradient"),
    "the kind of layer is not heeded": (
        MODEL, "lambda name, base: layer(", "lambda name, base: LoRALinear(",
        "fast/test_model.py::test_a_layer_that_a_variant_refuses_leaves_no_trace"),
    "rates reported on the bases that chose them": (
        "lora_mini/lab/bases.py", "tuple(range(11, 27))", "tuple(range(1, 17))",
        "fast/test_sweep.py::test_the_bases_that_choose_are_not_those_that_report"),
    "the search for a rate stops at the edge": (
        "lora_mini/lab/sweep.py", "[FINE[i]] if step and", "[FINE[i]] if not step and",
        "fast/test_sweep.py::test_the_search_walks_until_the_best_rate_lies_inside"),
    "phi divided by the larger subspace": (
        "lora_mini/lab/inside.py", "/ min(len(V1), len(V2))", "/ max(len(V1), len(V2))",
        "fast/test_record_08.py::test_phi_is_the_mean_squared_cosine_of_the_principal_angles_and_max_over_d_"
        "by_chance"),
    "old directions counted as intruders": (
        "lora_mini/lab/inside.py", "np.flatnonzero(closest < threshold)",
        "np.flatnonzero(closest > threshold)",
        "fast/test_record_08.py::test_a_planted_direction_is_an_intruder_and_an_old_one_is_not"),
    "noise louder than the update": (
        "lora_mini/lab/inside.py", "noise * np.linalg.norm(X) / np.linalg.norm(noise)",
        "noise * np.linalg.norm(X)",
        "fast/test_record_08.py::test_noise_has_the_shape_and_the_norm_and_parts_add_up"),
    "curves sent in two digits": (
        "lora_mini/desk/curves.py", "def digits(y, count=4)", "def digits(y, count=2)",
        "fast/test_sliders.py::test_means_seeds_and_lines_are_sent_in_four_digits"),
    "a probe that puts the patient to sleep": (
        "lora_mini/lab/ward.py", "with train.threads(1), at_rest(patient.model):",
        "with train.threads(1):",
        "fast/test_zoo.py::test_excess_and_answers_leave_the_modes_as_they_are"),
    "a distance from the twin in shares of nothing": (
        "lora_mini/lab/ward.py", "/ self._gap(patient.twin, off)", "/ 1.0",
        "fast/test_zoo.py::test_the_probes_say_what_their_names_say"),
    "a loader that may lose a factor is solved": (
        "lora_mini/desk/checks/nb14.py", '("renamed", "missing", "more"))', '("renamed", "more"))',
        "fast/test_checks.py::test_a_check_knows_this_answer"),
    "a record's cell is the first that comes": (
        "lora_mini/lab/record.py", "if len(found) != 1:", "if not found:",
        "fast/test_record.py::test_a_cell_is_found_by_what_it_says_and_only_if_it_is_the_one"),
    "one open contrast hides the decided ones": (
        VERDICTS, '"not decided" if not holding + failing else', '"not decided" if still_open else',
        "fast/test_desk.py::test_made_up_data_of_all_four_kinds"),
    "no record is ever old": (
        CLAIMS, 'again["outside"] > replay.ALLOWED * again["of"]', "False",
        "fast/test_claims.py::test_a_record_is_old_when_too_many_of_its_points_no_longer_land"),
    "a fact that was not measured is read as no": (
        CLAIMS, "({words})(?!\\w)", "({words})",
        "fast/test_claims.py::test_facts_are_read_as_they_were_printed_over_line_ends_too"),
    "the reader's verdict stands in what is compared": (
        "lora_mini/desk/page.py", "{row['says']}\\n  {brief(row)}\"",
        "{row['says']}\\n  {brief(row)}{own.get(row['claim'])}\"",
        "fast/test_claims.py::test_the_readers_own_stand_in_the_table_and_not_in_what_is_compared"),
    "queries and keys whose rows did not move for llama.cpp": (
        "lora_mini/adapters/llama_cpp.py", "if leaf in TURNED:", "if False:",
        "fast/test_gguf.py::test_every_factor_is_there_under_its_name_and_rows_are_turned_by_hand"),
    "an alpha for llama.cpp that forgets the rank": (
        "lora_mini/adapters/llama_cpp.py", "layer.scaling * rank", "layer.scaling",
        "fast/test_gguf.py::test_alpha_over_rank_of_the_file_gives_the_update"),
    "two alphas of which llama.cpp gets one": (
        "lora_mini/adapters/llama_cpp.py", "if not math.isclose(", "if False and math.isclose(",
        "fast/test_gguf.py::test_what_llama_cpp_can_not_hold_is_refused_and_nothing_is_written"),
    "tensors of a GGUF that begin anywhere": (
        "lora_mini/gguf_file.py", "return data + bytes(-len(data) % ALIGN)", "return data",
        "fast/test_gguf.py::test_a_small_file_is_these_bytes"),
    "a block's two halves exchanged": (
        "lora_mini/blocks.py", "W[:, :16] = blocks[:, 4:] & 15\n    W[:, 16:] = blocks[:, 4:] >> 4",
        "W[:, 16:] = blocks[:, 4:] & 15\n    W[:, :16] = blocks[:, 4:] >> 4",
        "fast/test_blocks.py::test_a_block_on_paper"),
    "a four-bit layer that makes its whole weight": (
        "lora_mini/blocks.py", "step = max(1, PIECE // self.in_features)", "step = 10**9",
        "fast/test_blocks.py::test_forward_and_backward_never_hold_the_whole_weight"),
    "a gradient that sees one piece of the weight": (
        "lora_mini/quant.py", "return reduce(operator.add, parts), None",
        "return next(parts), None",
        "fast/test_blocks.py::test_a_layer_is_its_rounded_weight_in_output_and_gradient"),
    "a download that nobody checks": (
        "lora_mini/lab/fetch.py", "if sha256(whole) != parcel.sha256:", "if False:",
        "fast/test_fetch.py::test_what_fails_says_what_to_do_by_hand_leaves_nothing_and_heals"),
    "a file that is trusted because it is there": (
        "lora_mini/lab/fetch.py", "if path.exists() and sha256(path) != parcel.sha256:",
        "if False:", "fast/test_fetch.py::test_what_was_damaged_since_is_fetched_anew"),
}


def plant(folder, name):
    """A copy of the package and its tests in `folder`, with one fault in it."""
    file, old, new, _ = BREAKS[name]
    source = (build.ROOT / file).read_text("utf-8")
    assert source.count(old) == 1, f"{file} holds {source.count(old)} times: {old}"
    for part in ("lora_mini", "tests"):
        shutil.copytree(build.ROOT / part, folder / part,
                        ignore=shutil.ignore_patterns("__pycache__"))
    (folder / file).write_text(source.replace(old, new), "utf-8")
    for needed in ("conftest.py", "build.py", "pyproject.toml"):
        shutil.copy(build.ROOT / needed, folder)
    return str(folder)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    folders = [plant(tmp_path_factory.mktemp("break"), name) for name in BREAKS]
    tests = [test for *_, test in BREAKS.values()]
    fork = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if fork else "spawn")
    context.set_forkserver_preload(["torch", "pytest", "nbval.plugin", "jupytext", "planting"])
    with ProcessPoolExecutor(2, context, max_tasks_per_child=1) as pool:  # a new process for each
        return dict(zip(BREAKS, pool.map(planting.run, folders, tests), strict=True))


@pytest.mark.parametrize("name", BREAKS)
def test_a_planted_fault_turns_its_test_red(outcomes, name):
    status, output = outcomes[name]
    assert status == 1, output
    by_assertion = r"^E +(AssertionError|assert|.*(DID NOT RAISE|Regex pattern did not match))"
    assert re.search(by_assertion, output, re.M), output
    assert not re.search(r"ImportError|SyntaxError|ModuleNotFoundError", output), output
