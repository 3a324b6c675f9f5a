// Configurations that the program knows by name, as the JSON text of a published pipeline's files.
#ifndef PB_NN_PRESET_H
#define PB_NN_PRESET_H

// `preset`: "tiny" (SD 1.x's structure, 0.8M parameters), "sd14", "sd21", "sdxl" (UNet only).
// `part`: "unet", "vae", "text_encoder" or "scheduler". NULL where the preset has no such part or there is none.
const char *pb_preset_json(const char *preset, const char *part);

#endif
