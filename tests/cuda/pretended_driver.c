// A driver, libcuda.so.1, for a machine without one: enough of it that cuDNN goes on to compile its kernels and takes
// them as loaded. No GPU is ever shown, and nothing can run.
// What is asked for by name only has to be there; its arguments are not looked at.
static char something[64];

#define DRIVER(name) \
    int name(void);  \
    int name(void)
#define DONE(name) \
    DRIVER(name) { \
        return 0;  \
    }
#define NO_DEVICE(name) \
    DRIVER(name) {      \
        return 100;     \
    }
#define GIVES(name)           \
    int name(void **handle);  \
    int name(void **handle) { \
        *handle = something;  \
        return 0;             \
    }

NO_DEVICE(cuInit)
NO_DEVICE(cuDriverGetVersion)
NO_DEVICE(cuDeviceGetCount)
NO_DEVICE(cuDeviceGet)
NO_DEVICE(cuGetProcAddress)
NO_DEVICE(cuGetProcAddress_v2)
NO_DEVICE(cuLaunchKernel)
NO_DEVICE(cuLaunchKernelEx)
NO_DEVICE(cuLaunchCooperativeKernel)
GIVES(cuLibraryLoadData)
GIVES(cuLibraryLoadFromFile)
GIVES(cuLibraryGetKernel)
GIVES(cuModuleLoadData)
GIVES(cuModuleLoadDataEx)
GIVES(cuModuleLoadFatBinary)
GIVES(cuModuleGetFunction)
GIVES(cuKernelGetFunction)
DONE(cuCtxGetCurrent)
DONE(cuCtxGetDevice)
DONE(cuCtxGetLimit)
DONE(cuCtxPopCurrent)
DONE(cuCtxPushCurrent)
DONE(cuDeviceGetAttribute)
DONE(cuDevicePrimaryCtxRelease)
DONE(cuDevicePrimaryCtxReset)
DONE(cuDevicePrimaryCtxRetain)
DONE(cuFuncGetAttribute)
DONE(cuFuncSetAttribute)
DONE(cuGetErrorName)
DONE(cuGetErrorString)
DONE(cuKernelGetAttribute)
DONE(cuKernelSetAttribute)
DONE(cuLibraryUnload)
DONE(cuLinkAddData)
DONE(cuLinkAddData_v2)
DONE(cuLinkAddFile_v2)
DONE(cuLinkComplete)
DONE(cuLinkCreate)
DONE(cuLinkCreate_v2)
DONE(cuLinkDestroy)
DONE(cuMemcpyDtoH_v2)
DONE(cuModuleGetGlobal_v2)
DONE(cuModuleUnload)
DONE(cuOccupancyMaxActiveBlocksPerMultiprocessor)
DONE(cuOccupancyMaxPotentialClusterSize)
DONE(cuStreamGetCtx)
DONE(cuStreamSynchronize)
DONE(cuTensorMapEncodeIm2col)
DONE(cuTensorMapEncodeTiled)
