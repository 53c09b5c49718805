#!/usr/bin/env bash
# From an empty clone to saliency maps; called by `make demo`.
set -euo pipefail
make=$1 python=$2 data=$3 runs=$4

parts=()
part() {  # part NAME COMMAND...: runs it and remembers how long it took
  local name=$1 start=$SECONDS
  shift
  echo "--- $name"
  "$@"
  parts+=("$(printf '%-12s %4d s' "$name" $((SECONDS - start)))")
}

part install "$make" --no-print-directory install
part prepare "$python" -m saliency_jax.data prepare shapes --data_dir "$data"
part classifier "$python" train.py --config configs/classifier_shapes.py:demo \
  --config.data.data_dir="$data" --workdir "$runs/classifier"
part casm "$python" train.py --config configs/casm_shapes.py:demo \
  --config.data.data_dir="$data" --config.classifier.init="$runs/classifier" \
  --workdir "$runs/casm"
mkdir -p "$runs"
part evaluate sh -c '"$@" > "$0"' "$runs/evaluation.txt" \
  "$python" evaluate.py --workdir "$runs/casm"

echo
echo "--- time"
printf '%s\n' "${parts[@]}"
printf '%-12s %4d s\n' all "$SECONDS"
echo
echo "--- result"
cat "$runs/evaluation.txt"
echo "$runs/casm/pictures"
