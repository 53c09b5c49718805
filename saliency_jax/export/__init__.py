"""A masker as a compiled program in one file: StableHLO, for JAX alone.

    export_masker(load_masker("runs/casm"), "casm.safetensors")
    masks = load_exported("casm.safetensors")(images)

The file is a safetensors file: `program` holds the bytes of `jax.export`, the other
arrays are the weights, where they are beside the program and not inside it. So JAX,
flatbuffers and safetensors are all that it needs, without this library:

    arrays = safetensors.numpy.load_file("casm.safetensors")
    program = jax.export.deserialize(bytearray(arrays.pop("program")))
    masks = program.call(arrays, images)  # float32 [B, H, W, 3] in [0, 1]

with `labels`, int32 `[B]`, after the images for the masker of a black box. The program
has no gradient and cannot be mapped by `jax.vmap`. JAX reads exported programs for six
months after they were made: keep the run, or the file of `Masker.save`, and export
again. Unlike that file's arrays a program is run: load those you would run.
"""
